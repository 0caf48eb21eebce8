"""Whether a model came out again: identical, or what differs and why that may be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from heartseg.config.nested import leaves
from heartseg.text import printable

NOT_COMPARED = ("weights_md5", "selected_on_it")  # of report.json; the former is the other check
SHOWN = 20
CAUSES = {
    "device": "other hardware",
    "cpu": "other hardware",
    "vector_units": "other hardware",
    "threads": "another number of threads",
    "workers": "another number of workers",
    "cuda": "another CUDA version",
    "cudnn": "another cuDNN version",
}


@dataclass(frozen=True)
class Verdict:
    """What came of a reproduction.

    Attributes:
        weights_identical: bit for bit; None where the recorded hash is not known.
        metrics_identical: all numbers of report.json; None where none are recorded.
        weights_difference: largest absolute difference of a weight, where the weights differ and
            the recorded ones are at hand.
        metrics: key, recorded and present value of those that differ, greatest change first.
        causes: what may explain a difference, likeliest first.
    """

    weights_identical: bool | None
    metrics_identical: bool | None
    weights_difference: float | None
    metrics: list[tuple[str, Any, Any]]
    causes: list[str]

    @property
    def reproduced(self) -> bool:
        return bool(self.weights_identical or self.metrics_identical)

    @property
    def summary(self) -> str:
        if self.weights_identical:
            other = {True: ", identical metrics", None: "", False: ", but other metrics"}
            return f"reproduced: bit-identical weights{other[self.metrics_identical]}"
        if self.metrics_identical:
            return "reproduced: identical metrics, though the weights differ"
        if self.metrics_identical is None:
            return "not reproduced: the weights differ, and no metrics are recorded"
        others = "" if self.weights_identical is None else "weights and "
        return f"not reproduced: {others}metrics differ"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reproduced": self.reproduced, "summary": self.summary}


def differing_metrics(recorded: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, recorded and present value of what differs in report.json, greatest change first."""
    before, after = _comparable(recorded), _comparable(now)
    found = [
        (printable(key), before.get(key), after.get(key))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]
    return sorted(found, key=lambda row: -_change(row[1], row[2]))


def largest_difference(recorded: Path, now: Path) -> float | None:
    """Of any weight in two safetensors files; None where their tensors are not the same ones."""
    from safetensors.torch import load_file

    before, after = load_file(recorded), load_file(now)
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        return None
    return max((before[k].double() - after[k].double()).abs().max().item() for k in before)


def likely_causes(
    recorded: dict[str, str], now: dict[str, str], packages: dict[str, tuple[str, str]]
) -> list[str]:
    """What differs between two trainings, by the tags of their runs.

    Args:
        recorded: tags of the recorded run.
        now: tags of its reproduction.
        packages: versions then and now by name of those that differ.
    """
    recorded, packages = printable(recorded), printable(packages)
    causes = []
    for key, cause in CAUSES.items():
        then, today = recorded.get(f"machine.{key}"), now.get(f"machine.{key}")
        if then is None:
            continue
        if then != today:
            causes.append(f"{cause}: {key} {then} then, {today} now")
    if recorded.get("heartseg.code_md5") != now.get("heartseg.code_md5"):
        causes.append("other code: files of heartseg that no commit and no patch holds")
    if packages:
        listed = [f"{name} {then} then, {today} now" for name, (then, today) in packages.items()]
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        causes.append(f"other library versions: {'; '.join(listed[:5])}{more}")
    measured_by = recorded.get("eval.git.commit")
    if measured_by not in (None, recorded.get("git.commit")):
        causes.append(f"metrics only: the recorded ones were measured by commit {measured_by}")
    if now.get("machine.cuda", "none") != "none":
        causes.append("a GPU's sums are not taken in the same order each time")
    return causes


def verdict_view(verdict: Verdict) -> RenderableType:
    """For the terminal."""
    colour = "green" if verdict.reproduced else "red"
    parts: list[RenderableType] = [f"[bold {colour}]{verdict.summary}[/]"]
    if verdict.weights_difference is not None:
        parts.append(f"largest difference of a weight: {verdict.weights_difference:.3g}")
    if verdict.metrics:
        parts.append(_table(verdict.metrics))
    if verdict.metrics or not verdict.weights_identical:
        causes = verdict.causes or ["no cause is known: machine, packages and code are the same"]
        parts += ["likely because of:", *(escape(f"  - {cause}") for cause in causes)]
    return Group(*parts)


def _table(rows: list[tuple[str, Any, Any]]) -> Table:
    table = Table("metric", "recorded", "now", "difference")
    for key, before, after in rows[:SHOWN]:
        numeric = _is_number(before) and _is_number(after)
        cells = [key, _short(before), _short(after), _short(after - before) if numeric else ""]
        table.add_row(*map(escape, cells))
    if len(rows) > SHOWN:
        table.add_row(f"and {len(rows) - SHOWN} more", "", "", "")
    return table


def _comparable(metrics: dict[str, Any]) -> dict[str, Any]:
    return {".".join(key): v for key, v in leaves(metrics) if key[-1] not in NOT_COMPARED}


def _change(before: Any, after: Any) -> float:
    """Relative, to order by; what is no number comes first."""
    if not (_is_number(before) and _is_number(after)):
        return math.inf
    return abs(after - before) / max(abs(before), abs(after))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.6g}" if _is_number(value) else printable(str(value))
