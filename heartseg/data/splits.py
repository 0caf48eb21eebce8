"""Split datasets into train, val and test by patient or animal, so that none is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import pairwise

from heartseg.config.data import Split
from heartseg.errors import InputError


def split_patients(
    patients: Iterable[str], split: Split, official: dict[str, str] | None
) -> dict[str, str]:
    """Assign every patient to "train", "val" or "test".

    A random or k-fold split depends only on the names and the seed. If a patient is added to the
    dataset, only few others change their split.

    Args:
        patients: Names in any order, with repetitions.
        split: Settings of the split from params.yaml.
        official: Official split of the release by patient; None if there is none.

    Returns:
        Split by patient.

    Raises:
        InputError: The split is impossible with these patients.
    """
    names = sorted(set(patients))
    if split.method == "official" and not official:
        raise InputError(
            "split.method is official, but the source has no split list (subgroup_training.txt, "
            "subgroup_validation.txt, subgroup_testing.txt). Add them, or set split.method to "
            "random or kfold in params.yaml"
        )
    if official and split.method in ("auto", "official"):
        result = _official(names, official)
    elif split.method == "kfold":
        result = _kfold(names, split)
    else:
        result = _random(names, split)
    if "train" not in result.values():
        raise InputError(
            f"the {split.method} split of {len(names)} patient(s) has no training patients. Add "
            "patients, or change the split in params.yaml"
        )
    return result


def notes_on_split(
    split_of: Mapping[str, str], split: Split, official: dict[str, str] | None, dataset: str
) -> list[str]:
    """Return a note if val or test is empty, with the consequences and the remedy.

    Args:
        split_of: Result of `split_patients`.
        split: Settings of the split from params.yaml.
        official: Official split of the release by patient; None if there is none.
        dataset: Name of the dataset in params.yaml.
    """
    empty = [name for name in ("val", "test") if name not in split_of.values()]
    if not empty:
        return []
    consequences = {
        "val": "without val, `heartseg train` fails, because it validates after each epoch",
        "test": "without test, `heartseg evaluate` uses val, on which the model may have been "
        "selected",
    }
    text = f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty: "
    if official and split.method in ("auto", "official"):
        where = "training" if len(empty) == 2 else "other"
        line = ", ".join(
            f"{key}: {value}" for key, value in (split.model_dump() | {"method": "random"}).items()
        )
        text += f"all {len(split_of)} patients are in the official {where} lists. "
        remedy = (
            "To split these patients at random, write below "
            f"datasets.{dataset} in params.yaml: split: {{{line}}}"
        )
    else:
        text += f"the {split.method} split of {len(split_of)} patients leaves none for them. "
        remedy = f"Add patients, or change the fractions of datasets.{dataset}.split in params.yaml"
    follows = "; ".join(consequences[name] for name in empty)
    return [f"{text}{follows[0].upper()}{follows[1:]}. {remedy}"]


def fold_of(patients: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """Assign each patient to the fold in which it is used for validation.

    The result depends only on the names and the seed. The sizes of the folds differ by at most one
    patient. An additional patient moves at most one patient across each border between folds.

    Args:
        patients: Names in any order, with repetitions.
        folds: Number of folds.
        seed: Seed of the random order.

    Returns:
        Number of the fold, from 0, by patient.

    Raises:
        InputError: There are fewer patients than folds.
    """
    order = _shuffled(sorted(set(patients)), seed)
    if len(order) < folds:
        raise InputError(f"{len(order)} patient(s) cannot fill {folds} folds. Use fewer folds")
    # Folds are contiguous parts of the order. With every k-th patient in a fold, an additional
    # patient would move all that follow it.
    borders = [fold * len(order) // folds for fold in range(folds + 1)]
    return {
        name: fold
        for fold, (first, end) in enumerate(pairwise(borders))
        for name in order[first:end]
    }


def _official(names: list[str], official: dict[str, str]) -> dict[str, str]:
    unlisted = [name for name in names if name not in official]
    if unlisted:
        raise InputError(
            f"{', '.join(unlisted)}: in no split list. Add them to one, or set split.method to "
            "random or kfold"
        )
    return {name: official[name] for name in names}


def _kfold(names: list[str], split: Split) -> dict[str, str]:
    folds = fold_of(names, split.folds, split.seed)
    test = [name for name, fold in folds.items() if fold == split.fold]
    rest = [name for name, fold in folds.items() if fold != split.fold]
    return dict.fromkeys(test, "test") | _train_and_val(rest, split.val_fraction)


def _random(names: list[str], split: Split) -> dict[str, str]:
    order = _shuffled(names, split.seed)
    held_out = _share(len(order), split.test_fraction)
    rest = _train_and_val(order[held_out:], split.val_fraction)
    return dict.fromkeys(order[:held_out], "test") | rest


def _train_and_val(names: list[str], val_fraction: float) -> dict[str, str]:
    val = _share(len(names), val_fraction)
    return dict.fromkeys(names[:val], "val") | dict.fromkeys(names[val:], "train")


def _share(count: int, fraction: float) -> int:
    """Return a fraction of `count` patients, from 1 to count - 1; 0 if `fraction` is 0."""
    if fraction == 0 or count < 2:
        return 0
    return min(max(round(count * fraction), 1), count - 1)


def _shuffled(names: list[str], seed: int) -> list[str]:
    """Shuffle by a hash of seed and name, which is independent of library versions."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
