from __future__ import annotations

import torch
from rich.console import Console
from safetensors.torch import save_file

from heartseg.report.verdict import (
    Verdict,
    differing_metrics,
    largest_difference,
    likely_causes,
    verdict_view,
)

METRICS = {
    "weights_md5": "a",
    "selected_on_it": True,
    "n_cases": 8,
    "overall": {"LV": {"dice": 0.9, "hd95": None}, "MYO": {"dice": 0.5}},
}
TAGS = {
    "machine.device": "cpu",
    "machine.threads": "2",
    "heartseg.code_md5": "c",
    "git.commit": "d",
    "eval.git.commit": "d",
}


def test_equal_metrics_of_other_weights_are_identical():
    assert differing_metrics(METRICS, METRICS | {"weights_md5": "b", "selected_on_it": False}) == []


def test_differences_by_their_size():
    now = METRICS | {
        "overall": {"LV": {"dice": 0.9 + 1e-12, "hd95": 3.0}, "MYO": {"dice": 0.25}},
        "new": 1,
    }
    assert differing_metrics(METRICS, now) == [
        ("overall.LV.hd95", None, 3.0),
        ("new", None, 1),
        ("overall.MYO.dice", 0.5, 0.25),
        ("overall.LV.dice", 0.9, 0.9 + 1e-12),
    ]


def test_the_largest_difference_of_a_weight(tmp_path):
    then = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5], dtype=torch.int64)}
    now = {"a": torch.tensor([1.0, 1.75]), "b": torch.tensor([5], dtype=torch.int64)}
    save_file(then, tmp_path / "then")
    save_file(now, tmp_path / "now")
    save_file({"a": torch.zeros(3)}, tmp_path / "other")
    assert largest_difference(tmp_path / "then", tmp_path / "now") == 0.25
    assert largest_difference(tmp_path / "then", tmp_path / "other") is None


def test_causes_are_what_differs():
    assert likely_causes(TAGS, TAGS, {}) == []
    now = TAGS | {"machine.threads": "1", "heartseg.code_md5": "x", "machine.device": "H200"}
    causes = likely_causes(TAGS | {"eval.git.commit": "e"}, now, {"torch": ("2.1", "2.2")})
    assert [cause.split(":")[0] for cause in causes] == [
        "other hardware",
        "another number of threads",
        "other code",
        "other library versions",
        "metrics only",
    ]
    assert "threads 2 then, 1 now" in causes[1]
    assert "torch 2.1 then, 2.2 now" in causes[3]


def test_verdicts():
    def summary(weights, metrics):
        return Verdict(weights, metrics, None, [], [])

    assert summary(True, True).reproduced
    assert summary(None, True).reproduced
    assert "bit-identical weights, but different metrics" in summary(True, False).summary
    assert "identical metrics" in summary(False, True).summary
    assert not summary(False, False).reproduced
    assert not summary(False, None).reproduced
    rows = [("overall.LV.dice", 0.9, 0.8)] + [(f"m{i}", 1, 2) for i in range(24)]
    console = Console(width=100, record=True)
    console.print(verdict_view(Verdict(False, False, 0.5, rows, ["other hardware: x"])))
    text = console.export_text()
    for part in ("0.9", "-0.1", "and 5 more", "other hardware", "difference of a weight: 0.5"):
        assert part in text
