"""Sections of params.yaml about data: where datasets come from, and the synthetic ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from heartseg.config.recipe import Count, Fraction, Positive, Section, Seed


class Split(Section):
    """How patients or animals are divided into training, validation and test data."""

    method: Literal["auto", "official", "random", "kfold"]
    """How patients are assigned. official: by the release's lists; random: by the fractions below;
    kfold: by fold; auto: official if the release has lists, otherwise random."""
    test_fraction: Fraction
    """Fraction of all patients that is held out for evaluation (random)."""
    val_fraction: Fraction
    """Fraction of the remaining patients that is used for validation during training (random,
    kfold)."""
    folds: Annotated[int, Field(ge=2)]
    """Number of folds (kfold)."""
    fold: Annotated[int, Field(ge=0)]
    """Index of the fold that is held out for evaluation, from 0 (kfold)."""
    seed: Seed
    """Seed of the assignment (random, kfold)."""

    @model_validator(mode="after")
    def _check(self) -> Split:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist with folds: {self.folds} (from 0)")
        if self.test_fraction + self.val_fraction >= 1.0:
            raise ValueError("test_fraction + val_fraction leave no patient to train on")
        return self


class CamusDataset(Section):
    """Where the apical views come from, and how they are read."""

    source: Path
    """Folder of the CAMUS release, of the 2019 challenge, or of nnU-Net's imagesTr/ and
    labelsTr/."""
    spacing: tuple[Positive, Positive] | None
    """(row, column) in mm per pixel of images without a credible scale. null: such images are
    refused."""
    frames: Literal[1] | Annotated[int, Field(ge=4)]
    """Frames per image. 1: an image is the ED or the ES frame. 4 or more: an image is the half
    sequence between these two frames, resampled to this number of frames, which become the
    network's input channels. (A network with 3 channels takes one grey frame.)"""
    skip_bad: bool
    """Leave unusable cases out and list them in the metadata, as --skip-bad does. false: report
    them and stop."""
    split: Split
    """How patients are divided into training, validation and test data."""


class MmodeDataset(Section):
    """Where the M-mode windows come from, and how they are read."""

    source: Path
    """Folder with img/ and mask/, which contain files of equal names. windows.csv is optional."""
    skip_bad: bool
    """Leave unusable cases out and list them in the metadata, as --skip-bad does. false: report
    them and stop."""
    animal_pattern: str
    """Regular expression with a group `animal` that matches the file names. All windows of an
    animal are in the same split."""
    mm_per_row: Positive
    """Depth of a pixel in mm, used if windows.csv does not contain it."""
    s_per_column: Positive
    """Time of a pixel in s, used if windows.csv does not contain it."""
    species: Literal["mouse", "human"]
    """Species of the subjects. It determines plausible heart rates and sizes, and the unit of
    volumes."""
    split: Split
    """How animals are divided into training, validation and test data."""


class Datasets(Section):
    """The source of each dataset."""

    camus: CamusDataset
    """Apical two- and four-chamber views."""
    mmode: MmodeDataset
    """M-mode windows with masks of the LV."""
    mmode_quality: Annotated[MmodeDataset, Field(alias="mmode-quality")]
    """Good and bad M-mode windows. Only img/ and windows.csv are read, here and in bad/ and
    unannotated/ below the source."""

    def of(self, name: str) -> CamusDataset | MmodeDataset:
        """Return the section of a dataset."""
        return getattr(self, name.replace("-", "_"))


class Windows(Section):
    """How `heartseg windows` cuts M-mode recordings into square windows."""

    beats: Positive
    """Length of a window in heart beats. The size in pixels follows from the recording's heart
    rate."""
    size: Annotated[int, Field(ge=32)] | None
    """Rows and columns of every window in pixels. null: the size follows from `beats`."""
    overlap: Annotated[float, Field(ge=0, lt=1)]
    """Minimum fraction of a window that overlaps with the next one."""
    margin: Annotated[float, Field(ge=0)]
    """Minimum space above and below the LV, as a fraction of the LV's height. Ignored if `size` is
    set."""


class CamusPhantoms(Section):
    """Synthetic apical views in the layout of the CAMUS release."""

    patients: Count
    """Number of patients."""
    half_sequences: Annotated[int, Field(ge=0)]
    """Number of patients that also get half sequences (3-D NIfTI files, time last)."""
    seed: Seed
    """Seed of the anatomy and of the split lists."""


class MmodePhantoms(Section):
    """Synthetic M-mode windows."""

    animals: Count
    """Number of animals."""
    windows_per_animal: Count
    """Number of windows of each animal."""
    window: Annotated[int, Field(ge=64)]
    """Rows and columns of a square window in pixels."""
    seed: Seed
    """Seed of the anatomy and of the noise."""


class Phantoms(Section):
    """The synthetic datasets that `heartseg phantoms` writes."""

    camus: CamusPhantoms
    """Apical views."""
    mmode: MmodePhantoms
    """M-mode windows with masks of the LV."""
    mmode_quality: Annotated[MmodePhantoms, Field(alias="mmode-quality")]
    """Good M-mode windows, and windows degraded to different extents."""
