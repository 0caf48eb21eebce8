"""Tests of the clinical errors of resized masks of hearts and strips with known sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import interpolate

from heartseg.data.species import HUMAN
from heartseg.datasets.camus import Camus
from heartseg.metrics.mmode import window_row
from heartseg.metrics.validation import NO_EF_ERROR, ClinicalValidation
from heartseg.training.validate import _gather
from tests.metrics.shapes import MM_PER_ROW, S_PER_COLUMN, UNEQUAL, heart, strip

SIZE = 256


def resized(masks: list[np.ndarray]) -> np.ndarray:
    """Resize masks to (N, SIZE, SIZE), like the resident arrays."""
    return np.concatenate(
        [
            interpolate(torch.from_numpy(mask)[None, None], (SIZE, SIZE), mode="nearest-exact")[0]
            for mask in masks
        ]
    )


def about(masks: list[np.ndarray], spacing: tuple[float, float], **columns: list[str]):
    heights, widths = zip(*(mask.shape for mask in masks), strict=True)
    facts = {"height": heights, "width": widths}
    return pd.DataFrame(columns | facts).assign(
        spacing_row=spacing[0], spacing_col=spacing[1], species="mouse"
    )


def volume(length: float, half_width: float) -> float:
    return length * half_width**2  # up to a factor, which cancels in the ejection fraction


def hearts(systole: tuple[float, float]) -> list[np.ndarray]:
    """Return 2CH and 4CH of a patient, ED (85 x 24 mm) and ES, at the original resolution."""
    return [heart(*shape, spacing=UNEQUAL) for _ in range(2) for shape in ((85.0, 24.0), systole)]


VIEWS = {"view": ["2CH", "2CH", "4CH", "4CH"], "phase": ["ED", "ES", "ED", "ES"]}


def camus(*patients: str, reference: list[np.ndarray]) -> ClinicalValidation:
    columns = {key: values * len(patients) for key, values in VIEWS.items()}
    columns["patient"] = [name for name in patients for _ in range(4)]
    return ClinicalValidation(
        "camus", resized(reference), about(reference, UNEQUAL, **columns).sample(frac=1.0)
        .sort_index().set_index(np.arange(100, 100 + len(reference)))
    )  # fmt: skip


def test_the_error_of_the_ejection_fraction():
    true, found = (70.0, 18.0), (75.0, 20.0)
    validation = camus("a", reference=hearts(true))
    edv = volume(85, 24)
    expected = abs(volume(*found) - volume(*true)) / edv * 100  # 10 points
    assert expected > 5
    assert validation.count() == 1
    error = validation.errors(resized(hearts(found)))
    assert error == {"ef_mae": pytest.approx(expected, abs=1.0)}
    assert validation.errors(validation.reference) == {"ef_mae": 0.0}


def test_a_patient_that_cannot_be_measured_has_the_maximum_error():
    reference = hearts((70.0, 18.0))
    validation = camus("a", "b", reference=reference * 2)
    found = validation.reference.copy()
    found[5][found[5] == Camus.LV] = Camus.BACKGROUND  # b, 2CH, ES
    assert validation.errors(found) == {"ef_mae": NO_EF_ERROR / 2}
    assert validation.errors(np.zeros_like(found)) == {"ef_mae": NO_EF_ERROR}


def test_patients_without_all_views_do_not_count():
    reference = hearts((70.0, 18.0))
    whole = camus("a", "b", reference=reference * 2)
    part = ClinicalValidation("camus", whole.reference[:7], whole.about[:7])
    assert (whole.count(), part.count()) == (2, 1)
    none = ClinicalValidation("camus", whole.reference[:3], whole.about[:3])
    assert none.count() == 0
    assert np.isnan(none.errors(none.reference)["ef_mae"])
    empty = ClinicalValidation("camus", whole.reference[:0], whole.about[:0])
    assert empty.count() == 0


def mmode(*diameters: tuple[float, float], columns: int = 400) -> tuple[list[np.ndarray], object]:
    masks = [
        strip(columns, lvidd=diastole, lvids=systole).astype(np.uint8)
        for diastole, systole in diameters
    ]
    return masks, about(masks, (MM_PER_ROW, S_PER_COLUMN))


def test_the_error_of_the_diameters():
    masks, facts = mmode((4.0, 2.4), (4.4, 2.8))
    validation = ClinicalValidation("mmode", resized(masks), facts)
    assert validation.count() == 4
    found, _ = mmode((4.0, 2.4), (5.0, 2.6))  # 0, 0, 0.6 and 0.2 mm wrong
    assert validation.errors(resized(found)) == {"lvid_mae": pytest.approx(0.2, abs=MM_PER_ROW)}
    assert validation.errors(validation.reference) == {"lvid_mae": 0.0}


def test_human_diameters_equal_those_of_the_evaluation():
    """The slow beats of human strips are implausible for a mouse."""
    spacing = (12 * MM_PER_ROW, 6 * S_PER_COLUMN)
    pairs = [
        (strip(1500).astype(np.uint8), strip(1500, lvidd=lvidd).astype(np.uint8))
        for lvidd in (4.2, 4.4)
    ]
    reference, found = (list(masks) for masks in zip(*pairs, strict=True))
    facts = about(reference, spacing).assign(species="human")
    validation = ClinicalValidation("mmode", np.stack(reference), facts)
    rows = [window_row(f, r, spacing, HUMAN) for r, f in pairs]
    expected = [
        abs(row[f"{name}_predicted"] - row[f"{name}_reference"])
        for row in rows
        for name in ("lvidd_mm", "lvids_mm")
    ]
    assert np.mean(expected) > 1
    assert validation.errors(np.stack(found)) == {"lvid_mae": pytest.approx(np.mean(expected))}


def test_species_is_inferred_from_the_size():
    human = (12 * MM_PER_ROW, 6 * S_PER_COLUMN)
    for spacing, species in (((MM_PER_ROW, S_PER_COLUMN), "mouse"), (human, "human")):
        masks = np.stack([strip(1500).astype(np.uint8)] * 2)
        found = np.stack([strip(1500, lvidd=4.4).astype(np.uint8)] * 2)
        facts = about(list(masks), spacing).assign(species=species)
        known = ClinicalValidation("mmode", masks, facts).errors(found)
        inferred = ClinicalValidation("mmode", masks, facts.drop(columns="species")).errors(found)
        assert inferred == known
        assert known["lvid_mae"] > 0


def test_a_window_that_cannot_be_measured_counts_as_0_mm():
    masks, facts = mmode((4.0, 2.4))
    validation = ClinicalValidation("mmode", resized(masks), facts)
    error = validation.errors(np.zeros_like(validation.reference))["lvid_mae"]
    assert error == pytest.approx((4.0 + 2.4) / 2, abs=2 * MM_PER_ROW)


def test_label_maps_of_all_ranks_are_gathered_in_order(monkeypatch):
    maps = torch.arange(7 * 4, dtype=torch.uint8).reshape(7, 2, 2)
    for ranks in (1, 2, 3, 9):  # the last two ranks of nine have nothing
        shares = [list(maps[rank::ranks].split(2)) for rank in range(ranks)]
        own = [torch.cat(share).numpy() if share else np.empty((0, 2, 2)) for share in shares]

        def gather(parts, mine, own=own):
            assert np.array_equal(mine, own[0])
            parts[:] = own

        monkeypatch.setattr("torch.distributed.all_gather_object", gather)
        assert np.array_equal(_gather(shares[0], maps.shape, ranks), maps.numpy())
