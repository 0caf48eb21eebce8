"""Result of a reproduction: identical, or the differences and their likely causes."""

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

NOT_COMPARED = ("weights_md5", "selected_on_it")
"""Keys of report.json that are not compared. Weights are compared separately."""
SHOWN = 20  # metrics in the table
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
    """Result of a reproduction.

    Attributes:
        weights_identical: Whether the weights are bit-identical; None if the recorded hash is not
            known.
        metrics_identical: Whether all values of report.json are equal; None if none are recorded.
        weights_difference: Largest absolute difference of a weight; None if the weights are
            identical or the recorded ones are not available.
        metrics: Key, recorded and present value of the differing metrics, greatest change first.
        causes: Possible causes of a difference, most likely first.
    """

    weights_identical: bool | None
    metrics_identical: bool | None
    weights_difference: float | None
    metrics: list[tuple[str, Any, Any]]
    causes: list[str]

    @property
    def reproduced(self) -> bool:
        """Whether the weights or the metrics are identical."""
        return bool(self.weights_identical or self.metrics_identical)

    @property
    def summary(self) -> str:
        """The result in one line."""
        if self.weights_identical:
            suffix = {True: ", identical metrics", None: "", False: ", but different metrics"}
            return f"reproduced: bit-identical weights{suffix[self.metrics_identical]}"
        if self.metrics_identical:
            return "reproduced: identical metrics, though the weights differ"
        if self.metrics_identical is None:
            return "not reproduced: the weights differ, and no metrics are recorded"
        prefix = "" if self.weights_identical is None else "weights and "
        return f"not reproduced: {prefix}metrics differ"

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON-serialisable values."""
        return asdict(self) | {"reproduced": self.reproduced, "summary": self.summary}


def differing_metrics(recorded: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return key, recorded and present value of differing metrics, greatest change first.

    Args:
        recorded: Recorded content of report.json.
        now: Present content of report.json.
    """
    before, after = _comparable(recorded), _comparable(now)
    found = [
        (printable(key), before.get(key), after.get(key))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]
    return sorted(found, key=lambda row: -_change(row[1], row[2]))


def largest_difference(recorded: Path, now: Path) -> float | None:
    """Return the largest absolute difference of a weight in two safetensors files.

    Returns:
        The difference, or None if the tensors have different names or shapes.
    """
    from safetensors.torch import load_file

    before, after = load_file(recorded), load_file(now)
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        return None
    return max((before[k].double() - after[k].double()).abs().max().item() for k in before)


def likely_causes(
    recorded: dict[str, str], now: dict[str, str], packages: dict[str, tuple[str, str]]
) -> list[str]:
    """Return possible causes of a difference, from the tags of both runs.

    Args:
        recorded: Tags of the recorded run.
        now: Tags of its reproduction.
        packages: Recorded and present version of the differing packages by name.
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
        causes.append("other code: files of heartseg that are in no commit and no patch")
    if packages:
        listed = [f"{name} {then} then, {today} now" for name, (then, today) in packages.items()]
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        causes.append(f"other library versions: {'; '.join(listed[:5])}{more}")
    measured_by = recorded.get("eval.git.commit")
    if measured_by not in (None, recorded.get("git.commit")):
        causes.append(f"metrics only: the recorded ones were measured by commit {measured_by}")
    if now.get("machine.cuda", "none") != "none":
        causes.append("a GPU adds numbers in a different order each time")
    return causes


def verdict_view(verdict: Verdict) -> RenderableType:
    """Return the result for the terminal."""
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
    """Return the relative change, as a sort key; infinite for values that are not numbers."""
    if not (_is_number(before) and _is_number(after)):
        return math.inf
    return abs(after - before) / max(abs(before), abs(after))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.6g}" if _is_number(value) else printable(str(value))
