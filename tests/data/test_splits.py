"""Each patient is in exactly one split."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from heartseg.config.data import Split
from heartseg.config.params import Params
from heartseg.data.splits import fold_of, notes_on_split, split_patients
from heartseg.errors import InputError

NAMES = st.sets(st.text("abc012", min_size=1, max_size=6), min_size=2, max_size=60)
SEEDS = st.integers(0, 1000)


def rule(**changes: object) -> Split:
    values = {"method": "random", "test_fraction": 0.2, "val_fraction": 0.1}
    values |= {"folds": 5, "fold": 0, "seed": 0}
    return Split.model_validate(values | changes)


@given(names=NAMES, seed=SEEDS, test=st.floats(0.05, 0.6), val=st.floats(0, 0.3))
def test_random_split_is_a_partition_of_the_given_sizes(
    names: set[str], seed: int, test: float, val: float
) -> None:
    split = split_patients(names, rule(seed=seed, test_fraction=test, val_fraction=val), None)
    assert split.keys() == names
    sizes = Counter(split.values())
    assert sizes["train"] >= 1
    assert sizes["test"] >= 1
    assert abs(sizes["test"] - test * len(names)) <= 1
    assert abs(sizes["val"] - val * (len(names) - sizes["test"])) <= 1
    assert (sizes["val"] == 0) == (val == 0 or len(names) - sizes["test"] < 2)


@given(names=NAMES, seed=SEEDS, order=st.randoms())
def test_neither_order_nor_repetition_matters(names: set[str], seed: int, order) -> None:
    cases = [*names, *names]  # several cases of a patient
    order.shuffle(cases)
    for method in ("random", "kfold"):
        how = rule(method=method, seed=seed, folds=2, fold=1)
        assert split_patients(cases, how, None) == split_patients(sorted(names), how, None)


@given(names=NAMES, seed=SEEDS, folds=st.integers(2, 7))
def test_every_patient_is_held_out_by_exactly_one_fold(
    names: set[str], seed: int, folds: int
) -> None:
    def parts(fold: int) -> dict[str, str]:
        return split_patients(names, rule(method="kfold", folds=folds, fold=fold, seed=seed), None)

    if len(names) < folds:
        with pytest.raises(InputError, match="folds"):
            parts(0)
        return
    held_out = Counter(
        name for fold in range(folds) for name, part in parts(fold).items() if part == "test"
    )
    assert held_out == Counter(names)
    sizes = [list(parts(fold).values()).count("test") for fold in range(folds)]
    assert max(sizes) - min(sizes) <= 1


def test_split_depends_on_seed_and_new_patient_moves_few() -> None:
    names = [f"patient{number:04d}" for number in range(200)]
    first, second = split_patients(names, rule(), None), split_patients(names, rule(seed=1), None)
    assert first != second
    more = split_patients([*names, "patient9999"], rule(), None)
    assert sum(first[name] != more[name] for name in names) <= 2


@given(names=NAMES, seed=SEEDS, folds=st.integers(2, 6), new=st.text("abc012", min_size=7))
def test_a_new_patient_moves_one_across_each_border_of_folds(
    names: set[str], seed: int, folds: int, new: str
) -> None:
    if len(names) < folds:
        return
    before, after = fold_of(names, folds, seed), fold_of({*names, new}, folds, seed)
    assert sum(before[name] != after[name] for name in names) <= folds - 1
    how = rule(method="kfold", seed=seed, folds=folds, fold=folds - 1)
    first, more = (split_patients(each, how, None) for each in (names, {*names, new}))
    assert sum(first[name] != more[name] for name in names) <= 3  # test, and both sides of val


def test_zero_test_fraction_gives_no_test_patients() -> None:
    split = split_patients("abcdefghij", rule(test_fraction=0.0), None)
    assert Counter(split.values()) == {"train": 9, "val": 1}


def test_official_lists_are_used_by_auto_only() -> None:
    official = {"a": "train", "b": "val", "c": "test", "absent": "train"}
    expected = {"a": "train", "b": "val", "c": "test"}
    for method in ("auto", "official"):
        assert split_patients("cab", rule(method=method), official) == expected
    alone = split_patients("cab", rule(method="random"), None)
    assert split_patients("cab", rule(method="random"), official) == alone
    assert split_patients("cab", rule(method="auto"), None) == alone


@pytest.mark.parametrize(
    ("method", "official", "reason"),
    [
        ("official", None, "no split list"),
        ("official", {"a": "test", "b": "val"}, "no training patients"),
        ("official", {"a": "train"}, "b: in no split list"),
    ],
)
def test_impossible_splits_are_refused(
    method: str, official: dict[str, str] | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        split_patients(["a", "b"], rule(method=method), official)


def test_committed_defaults_split_three_patients(params: Params) -> None:
    split = split_patients("abc", params.datasets.camus.split, None)
    assert Counter(split.values()) == {"train": 1, "val": 1, "test": 1}


@given(names=NAMES, seed=SEEDS, folds=st.integers(2, 5))
def test_folds_have_equal_sizes(names: set[str], seed: int, folds: int) -> None:
    if len(names) < folds:
        with pytest.raises(InputError, match="fewer folds"):
            fold_of(names, folds, seed)
        return
    assigned = fold_of([*names, *names], folds, seed)
    assert assigned.keys() == names
    sizes = Counter(assigned.values())
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert fold_of(sorted(names, reverse=True), folds, seed) == assigned


def test_empty_splits_are_noted_with_consequences() -> None:
    """All twelve patients are in the official training list."""
    official = {f"patient{number:04d}": "train" for number in range(1, 400)}
    split = rule(method="auto")
    names = sorted(official)[:12]
    found = split_patients(names, split, official)
    (note,) = notes_on_split(found, split, official, "camus")
    for term in ("val and test are empty", "12 patients", "training", "heartseg train"):
        assert term in note
    line = note[note.index("split: {") :]
    written = rule(**yaml.safe_load(line)["split"])
    assert written.method == "random"
    assert set(split_patients(names, written, official).values()) == {"train", "val", "test"}
    assert notes_on_split({"a": "train", "b": "val", "c": "test"}, split, official, "camus") == []
    (note,) = notes_on_split({"a": "train", "b": "test"}, rule(), None, "mmode")
    assert note.startswith("val is empty")
    assert "official" not in note
