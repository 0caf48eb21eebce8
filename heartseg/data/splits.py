"""Which patients a model learns from and which it is judged on: always by patient or animal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import pairwise

from heartseg.config.data import Split
from heartseg.errors import InputError


def split_patients(
    patients: Iterable[str], split: Split, official: dict[str, str] | None
) -> dict[str, str]:
    """Put every patient into "train", "val" or "test".

    Args:
        patients: names, in any order; one that comes twice counts once.
        split: the dataset's section of params.yaml.
        official: the release's own split by patient, None where it has none.

    Returns:
        The split by patient. A random or k-fold split depends on the names and the seed only,
        and another patient in the dataset moves few of the others.

    Raises:
        InputError: the wanted split is impossible with these patients.
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
            f"the {split.method} split of {len(names)} patient(s) leaves nobody to train on; "
            "add patients or change the split in params.yaml"
        )
    return result


def notes_on_split(
    split_of: Mapping[str, str], split: Split, official: dict[str, str] | None, dataset: str
) -> list[str]:
    """Say which splits are empty, what follows, and what to write for another split.

    Args:
        split_of: of `split_patients`.
        split: the dataset's section of params.yaml.
        official: the release's own split by patient, None where it has none.
        dataset: name of the section in params.yaml.
    """
    empty = [name for name in ("val", "test") if name not in split_of.values()]
    if not empty:
        return []
    follows = {
        "val": "without val, `heartseg train` refuses, as it validates after each epoch",
        "test": "without test, `heartseg evaluate` takes val, by which the model may have been "
        "chosen",
    }
    text = f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty: "
    if official and split.method in ("auto", "official"):
        where = "training" if len(empty) == 2 else "other"
        line = ", ".join(
            f"{key}: {value}" for key, value in (split.model_dump() | {"method": "random"}).items()
        )
        remedy = f"To split these patients at random, write in params.yaml, datasets.{dataset}: "
        remedy += f"split: {{{line}}}"
        text += f"all {len(split_of)} patients are in the official {where} lists. "
    else:
        remedy = "Add patients, or change the fractions of datasets.{dataset}.split in params.yaml"
        remedy = remedy.format(dataset=dataset)
        text += f"the {split.method} split of {len(split_of)} patients leaves none for it. "
    told = "; ".join(follows[name] for name in empty)
    return [f"{text}{told[0].upper()}{told[1:]}. {remedy}"]


def fold_of(patients: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """The fold, from 0, in which each patient validates while the other folds are trained on.

    The result depends on the names and the seed only. The sizes of folds differ by one patient at
    most, and another patient moves at most one patient across each border between folds.

    Raises:
        InputError: there are fewer patients than folds.
    """
    order = _shuffled(sorted(set(patients)), seed)
    if len(order) < folds:
        raise InputError(f"{len(order)} patient(s) cannot fill {folds} folds; take fewer folds")
    # Pieces of the order, not every k-th of it: an added patient would renumber all behind it.
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
            f"{', '.join(unlisted)}: in no split list; add them to one or set split.method "
            "to random or kfold"
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
    """So many of `count` patients, leaving at least one on either side; 0 if none is wanted."""
    if fraction == 0 or count < 2:
        return 0
    return min(max(round(count * fraction), 1), count - 1)


def _shuffled(names: list[str], seed: int) -> list[str]:
    """Order by a hash of seed and name: the same with every version of every library."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
