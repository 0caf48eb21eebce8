"""params.yaml as typed, validated objects.

Every configured value has its one default in params.yaml; the classes below carry none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from heartseg.config.nested import merged
from heartseg.config.recipe import (
    Count,
    DatasetName,
    Fraction,
    ModelDefaults,
    Positive,
    Recipe,
    RecipeDefaults,
    Section,
    Seed,
)
from heartseg.config.yaml_file import no_such, read_yaml_as
from heartseg.datasets import DATASETS
from heartseg.errors import InputError

PARAMS_FILE = "params.yaml"


# --- data ---------------------------------------------------------------------------------


class Split(Section):
    method: Literal["auto", "official", "random", "kfold"]
    """auto: the official lists where the release has them, otherwise random by patient."""
    test_fraction: Fraction
    """random: fraction of all patients held out for evaluation."""
    val_fraction: Fraction
    """random, kfold: fraction of the remaining patients used for validation while training."""
    folds: Annotated[int, Field(ge=2)]
    """kfold: number of folds."""
    fold: Annotated[int, Field(ge=0)]
    """kfold: the fold that is held out for evaluation, from 0."""
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> Split:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist with folds: {self.folds} (from 0)")
        if self.test_fraction + self.val_fraction >= 1.0:
            raise ValueError("test_fraction + val_fraction leave no patient to train on")
        return self


class CamusDataset(Section):
    source: Path
    """Folder of the release, of the 2019 challenge, or of nnU-Net's imagesTr/ and labelsTr/."""
    spacing: tuple[Positive, Positive] | None
    """(row, column) in mm per pixel, used for all images that state no scale to be believed; null:
    such images are refused."""
    frames: Literal[1] | Annotated[int, Field(ge=4)]
    """1: an image is the ED or the ES frame. More: the half sequence from that frame to the other,
    resampled to so many frames, which the network takes as channels (three are a grey image)."""
    skip_bad: bool
    """Leave bad cases out and list them in the metadata, as --skip-bad does; false: refuse."""
    split: Split


class MmodeDataset(Section):
    source: Path
    """Folder with img/ and mask/ of equal file names, optionally windows.csv beside them."""
    skip_bad: bool
    """Leave bad cases out and list them in the metadata, as --skip-bad does; false: refuse."""
    animal_pattern: str
    """Regular expression with a group `animal`: windows of one animal stay in one split."""
    mm_per_row: Positive
    """Used where windows.csv does not say."""
    s_per_column: Positive
    """Used where windows.csv does not say."""
    species: Literal["mouse", "human"]
    """Whose hearts these are: decides plausible heart rates and sizes, and the unit of volumes."""
    split: Split


class Datasets(Section):
    camus: CamusDataset
    mmode: MmodeDataset
    mmode_quality: Annotated[MmodeDataset, Field(alias="mmode-quality")]
    """Only img/ and windows.csv are read, here and in bad/ and unannotated/ below the source."""

    def of(self, name: str) -> CamusDataset | MmodeDataset:
        """The section of the dataset of that name."""
        return getattr(self, name.replace("-", "_"))


class Windows(Section):
    """How `heartseg windows` cuts M-mode recordings into square windows."""

    beats: Positive
    """Length of a window in heart beats; its size follows from the recording's heart rate."""
    size: Annotated[int, Field(ge=32)] | None
    """Rows and columns of every window instead, in pixels."""
    overlap: Annotated[float, Field(ge=0, lt=1)]
    """Least part of a window that the next one shows again."""
    margin: Annotated[float, Field(ge=0)]
    """Least room above and below the LV, as a part of its height (not with a fixed size)."""


class CamusPhantoms(Section):
    patients: Count
    half_sequences: Annotated[int, Field(ge=0)]
    """Number of patients that also get half sequences (3-D NIfTI, time last)."""
    seed: Seed


class MmodePhantoms(Section):
    animals: Count
    windows_per_animal: Count
    window: Annotated[int, Field(ge=64)]
    """Rows and columns of a square window."""
    seed: Seed


class Phantoms(Section):
    camus: CamusPhantoms
    mmode: MmodePhantoms
    mmode_quality: Annotated[MmodePhantoms, Field(alias="mmode-quality")]


# --- what is done with recipes ------------------------------------------------------------


class Elastic(Section):
    """Workers that a training starts and goes on with, as nodes are lost and return."""

    min: Count
    max: Count
    look_every_s: Positive
    """Seconds between two looks for room for more; growing repeats the epoch under way."""

    @model_validator(mode="after")
    def _ordered(self) -> Elastic:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, max only {self.max}")
        return self


class Train(Section):
    """How a training runs; nothing here changes its result beyond float rounding."""

    workers: Literal["auto"] | Count | Elastic
    """auto: one per GPU that the Ray cluster has, else one. {min, max, look_every_s}: as many of
    max as there is room for; the global batch stays what it is, so each number must divide it."""
    max_failures: Annotated[int, Field(ge=0)]
    """So many lost workers are replaced before the training gives up."""
    device_memory_fraction: Annotated[float, Field(gt=0, le=1)]
    """Images stay on the device while they take at most this part of its memory."""
    clinical_metrics: bool
    """Also measure the validation patients' clinical error after each epoch (ef_mae, lvid_mae);
    a sweep by such a metric does so in any case."""
    overlay_every: Annotated[int, Field(ge=0)]
    """Epochs between sample overlays in MLflow; 0 = none."""
    overlay_cases: Count


class Evaluate(Section):
    split: Literal["test", "val"]
    """Where test is empty, val is evaluated and the metrics say so."""
    postprocess: Literal["none", "largest_component", "auto"]
    """CAMUS: largest_component keeps each structure's largest connected part only; auto: whichever
    of the two gives the validation patients the better mean Dice. The packaged model does it."""
    tta: Literal["none", "views", "auto"]
    """Test-time augmentation. views: the mean over the dataset's views of each image (CAMUS 5,
    M-mode 2: heartseg/models/tta.py), a forward pass for each; auto: the views if they are better
    by tta_gain for the validation patients. The packaged model does it."""
    tta_gain: Annotated[float, Field(ge=0, le=1)]
    """Mean Dice that is worth the passes."""
    bootstrap_samples: Annotated[int, Field(ge=100)]
    bootstrap_seed: Seed
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class RecordingConfig(Section):
    """How `heartseg recording` segments and measures whole M-mode strips."""

    overlap: Annotated[float, Field(ge=0, lt=1)]
    """Part of a window that the next one covers too; a window is as long as `windows` says."""


class Register(Section):
    metric: str
    """A number of metrics.json; the better model by it becomes champion."""
    mode: Literal["max", "min"]
    floor: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    """Least values of numbers of metrics.json. A model that misses one is registered, but never
    becomes champion by itself, not even as the first. {}: none."""


class Registers(Section):
    camus: Register
    mmode: Register
    mmode_quality: Annotated[Register, Field(alias="mmode-quality")]

    @model_validator(mode="after")
    def _known(self) -> Registers:
        for dataset, spec in DATASETS.items():
            own, known = self.of(dataset), spec.headline
            for name in (own.metric, *own.floor):
                if name not in known:
                    raise ValueError(f"{dataset}: {no_such('metric', name, known)}")
        return self

    def of(self, name: str) -> Register:
        """The section of the dataset of that name."""
        return getattr(self, name.replace("-", "_"))


class Tracking(Section):
    experiment_prefix: str
    """MLflow experiment = prefix + dataset; registered model likewise."""
    system_metrics: bool
    offline: Literal["fail", "buffer"]
    """What `train`, `evaluate` and `register` do if the store does not answer at their start.
    buffer: they go on, and `heartseg sync` sends their results and registers the model later."""


class Privacy(Section):
    case_ids: Literal["plain", "hashed", "none"]
    """Names of patients, animals and cases in figures and in what goes to the tracking server:
    as they are, as a keyed hash (`heartseg.data.privacy`), or withheld."""


class Params(Section):
    """params.yaml, whole."""

    pipeline: dict[DatasetName, str]
    """The recipe that the stages of dvc.yaml train for each dataset."""
    phantoms: Phantoms
    datasets: Datasets
    windows: Windows
    recipe_defaults: RecipeDefaults
    model_defaults: ModelDefaults
    recipes: dict[str, Recipe]
    """Each with its dataset, model (a name, and what differs from the defaults), input_size,
    batch_size, learning_rate, epochs, and what differs from `recipe_defaults`."""
    train: Train
    evaluate: Evaluate
    recording: RecordingConfig
    register_: Annotated[Registers, Field(alias="register")]
    tracking: Tracking
    privacy: Privacy

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Fill in the recipes' defaults."""
        if not isinstance(values, dict) or not isinstance(values.get("recipes"), dict):
            return values
        try:
            RecipeDefaults.model_validate(values.get("recipe_defaults"))
            ModelDefaults.model_validate(values.get("model_defaults"))
        except ValidationError:  # is reported for the defaults; each recipe would repeat it
            return values | {"recipes": {}}
        recipes = {}
        for name, recipe in values["recipes"].items():
            model = recipe.get("model") if isinstance(recipe, dict) else None
            if isinstance(model, dict):
                own = values["model_defaults"].get(model.get("name"))
                recipe = recipe | {"model": merged(own, model)}
            recipes[name] = merged(values["recipe_defaults"], recipe)
        return values | {"recipes": recipes}

    @model_validator(mode="after")
    def _check(self) -> Params:
        for dataset, recipe in self.pipeline.items():
            if recipe not in self.recipes:
                raise ValueError(f"pipeline.{dataset}: {no_such('recipe', recipe, self.recipes)}")
            if self.recipes[recipe].dataset != dataset:
                raise ValueError(
                    f"pipeline.{dataset}: recipe {recipe} trains on {self.recipes[recipe].dataset}"
                )
        return self

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name; InputError names the nearest one otherwise."""
        if name not in self.recipes:
            raise InputError(f"{PARAMS_FILE}: {no_such('recipe', name, self.recipes)}")
        return self.recipes[name]


def load_params(path: Path | str = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: the file is missing, is no YAML, or has a wrong key or value; every
            wrong key is named with the nearest right one.
    """
    return read_yaml_as(Params, Path(path))
