"""Progress of a sweep: a table that fits the terminal, or plain lines without a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.table import Table

from heartseg.sweeps.trials import SweepTrials
from heartseg.tracking.trial import Trial
from heartseg.training.display import PeriodicCall
from heartseg.training.journal import read_progress

MARGIN = 7
"""Number of lines of the terminal besides the rows of the table."""


class SweepDisplay:
    """Display of the trials (state, epoch, metric), the best trial and the time left."""

    def __init__(self, trials: SweepTrials, console: Console | None = None):
        self.trials = trials
        self.console = console or Console()
        self.live = Live(
            console=self.console, auto_refresh=False, transient=False, vertical_overflow="crop"
        )
        self._told = {n: (row.epoch, row.state) for n, row in trials.by_number.items()}
        self._repeated = PeriodicCall(self._show)

    def __enter__(self) -> SweepDisplay:
        ended = sum(row.state != "running" for row in self.trials.by_number.values())
        if ended:
            self.console.print(f"going on after {ended} trials")
        if self.console.is_terminal:
            self.live.start()
        self._repeated.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._repeated.stop()
        self.live.stop()

    def _show(self) -> None:
        rows = sorted(self.trials.by_number.copy().values(), key=lambda row: row.number)
        if self.console.is_terminal:
            self.live.update(self.table(rows, self.console.height - MARGIN), refresh=True)
            return
        for row in rows:
            now = (row.epoch, row.state)
            if self._told.get(row.number, (0, "running")) != now:
                self._told[row.number] = now
                self.console.print(self._line(row, rows), highlight=False, soft_wrap=True)

    def table(self, rows: list[Trial], height: int) -> Table:
        """Return a table of the best trial, the running trials, and as many recent ones as fit."""
        sweep, best = self.trials.sweep, self._best(rows)
        shown = [row for row in rows if row is best or row.state == "running"]
        others = [row for row in rows if row not in shown]
        room = max(0, height - len(shown))
        shown = sorted(shown + others[max(0, len(others) - room) :], key=lambda row: row.number)
        table = Table(title=self._summary(rows), title_justify="left", expand=False)
        for name in ("trial", "state", "epoch", sweep.metric):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for row in shown:
            epoch = f"{row.epoch}/{row.epochs}"
            if row.state == "running" and (step := read_progress(row.run_dir)) is not None:
                done = step["epoch"] - 1 + step["step"] / step["steps"]
                epoch = f"{max(done, row.epoch):.1f}/{row.epochs}"
            state = f"{row.state}: {row.reason}"[:40] if row.state == "failed" else row.state
            value = "" if row.value is None else f"{row.value:.4f}"
            style = "bold green" if row is best else "" if row.state == "running" else "dim"
            table.add_row(row.name, state, epoch, value, style=style)
        return table

    def _line(self, row: Trial, rows: list[Trial]) -> str:
        value = "" if row.value is None else f"  {self.trials.sweep.metric} {row.value:.4f}"
        name = row.name
        if row.state == "running":
            return f"{name}  epoch {row.epoch}/{row.epochs}{value}"
        reason = f" ({row.reason})" if row.reason else ""
        return f"{name}  {row.state}{reason}{value}; {self._summary(rows)}"

    def _summary(self, rows: list[Trial]) -> str:
        ended = sum(row.state not in ("running", "cut off") for row in rows)
        running = sum(row.state == "running" for row in rows)
        count = self.trials.search.count
        parts = [f"{ended}/{count} trials ended" if count else f"{ended} trials ended"]
        if running:
            parts.append(f"{running} running")
        if (best := self._best(rows)) is not None:
            parts.append(
                f"best {self.trials.sweep.metric} {best.value:.4f} (trial {best.number:02d})"
            )
        if ended != count and (left := time_left(rows, count, self.trials)) is not None:
            minutes = round(left / 60)
            parts.append(f"about {minutes} min left" if minutes else "less than a minute left")
        return ", ".join(parts)

    def _best(self, rows: list[Trial]) -> Trial | None:
        complete = [row for row in rows if row.state == "complete" and row.value is not None]
        sign = 1 if self.trials.sweep.mode == "max" else -1
        return max(complete, key=lambda row: sign * (row.value or 0.0), default=None)


def time_left(rows: list[Trial], count: int | None, trials: SweepTrials) -> float | None:
    """Estimate the remaining seconds from the time per epoch and the epochs per trial so far.

    None before the first epoch. The estimate is at most what is left of the sweep's hours.
    """
    done = sum(row.epoch for row in rows)
    ended = [row.epoch for row in rows if row.state not in ("running", "cut off")]
    if not done:
        return None
    per_epoch = trials.seconds() / done
    running = [row for row in rows if row.state == "running"]
    typical = sum(ended) / len(ended) if ended else max(row.epochs for row in rows)
    left = sum(max(typical - row.epoch, 1) for row in running)
    if count is not None:
        left += max(0, count - len(rows)) * typical
    seconds = left * per_epoch
    hours = trials.sweep.hours
    return seconds if hours is None else min(seconds, max(0.0, 3600 * hours - trials.seconds()))
