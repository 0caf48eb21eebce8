"""params.yaml as typed, validated objects.

All defaults are in params.yaml. The classes contain none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from heartseg.config.data import Datasets, Phantoms, Windows
from heartseg.config.nested import merge
from heartseg.config.recipe import (
    Count,
    DatasetName,
    ModelDefaults,
    Positive,
    Recipe,
    RecipeDefaults,
    Section,
    Seed,
)
from heartseg.config.yaml_file import read_yaml_as, unknown_name
from heartseg.datasets import DATASETS
from heartseg.errors import InputError

PARAMS_FILE = "params.yaml"


class Elastic(Section):
    """A number of workers that changes as nodes are lost and return."""

    min: Count
    """Minimum number of workers. The training waits while there is room for fewer."""
    max: Count
    """Maximum number of workers."""
    look_every_s: Positive
    """Seconds between two checks for room for more workers. Adding workers repeats the current
    epoch."""

    @model_validator(mode="after")
    def _ordered(self) -> Elastic:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, max only {self.max}")
        return self


class Train(Section):
    """How a training runs. No value here changes its result beyond floating-point rounding."""

    workers: Literal["auto"] | Count | Elastic
    """Number of workers that train together. auto: one per GPU of the Ray cluster, or one without a
    GPU. {min, max, look_every_s}: as many as there is room for. Each number must divide the global
    batch size, which stays the same."""
    max_failures: Annotated[int, Field(ge=0)]
    """Number of worker failures after which the training gives up. Lost workers are replaced until
    then."""
    device_memory_fraction: Annotated[float, Field(gt=0, le=1)]
    """Images stay on the device if they take at most this fraction of its memory. Otherwise each
    batch is copied."""
    clinical_metrics: bool
    """Also measure the clinical error of the validation patients after each epoch (ef_mae,
    lvid_mae). A sweep that minimises such a metric always measures it."""
    overlay_every: Annotated[int, Field(ge=0)]
    """Number of epochs between sample overlays in MLflow; 0: none."""
    overlay_cases: Count
    """Number of validation images in each sample overlay."""


class Evaluate(Section):
    """How a trained model is evaluated, and what the packaged model does around its network."""

    split: Literal["test", "val"]
    """The split that is evaluated. If test is empty, val is evaluated and the metrics say so."""
    postprocess: Literal["none", "largest_component", "auto"]
    """Post-processing of the packaged model (CAMUS). largest_component: keep only the largest
    connected component of each structure; auto: use it if it raises the mean Dice of the validation
    patients."""
    tta: Literal["none", "views", "auto"]
    """Test-time augmentation of the packaged model. views: average the predictions of several views
    of an image (CAMUS 5, M-mode 2: heartseg/models/tta.py), each of which takes a forward pass;
    auto: do so if it raises the mean Dice of the validation patients by `tta_gain`."""
    tta_gain: Annotated[float, Field(ge=0, le=1)]
    """Gain in mean Dice that justifies the additional forward passes (tta: auto)."""
    bootstrap_samples: Annotated[int, Field(ge=100)]
    """Number of bootstrap samples for confidence intervals."""
    bootstrap_seed: Seed
    """Seed of the bootstrap samples."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Confidence level of the intervals, for example 0.95."""


class RecordingConfig(Section):
    """How `heartseg recording` segments and measures whole M-mode strips."""

    overlap: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of a window that overlaps with the next one. The section `windows` determines the
    size of a window."""


class Register(Section):
    """When a newly registered model becomes champion."""

    metric: str
    """Name of a value in metrics.json. The model with the better value becomes champion."""
    mode: Literal["max", "min"]
    """Whether a higher (max) or a lower (min) value of the metric is better."""
    floor: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    """Minimum values of numbers in metrics.json. A model that misses one is registered but does not
    become champion, even if it is the first model. {}: none."""


class Registers(Section):
    """The rule of each dataset for its champion."""

    camus: Register
    """Apical views."""
    mmode: Register
    """M-mode windows with masks of the LV."""
    mmode_quality: Annotated[Register, Field(alias="mmode-quality")]
    """Good and bad M-mode windows."""

    @model_validator(mode="after")
    def _known(self) -> Registers:
        for dataset, spec in DATASETS.items():
            own, known = self.of(dataset), spec.headline
            for name in (own.metric, *own.floor):
                if name not in known:
                    raise ValueError(f"{dataset}: {unknown_name('metric', name, known)}")
        return self

    def of(self, name: str) -> Register:
        """Return the section of a dataset."""
        return getattr(self, name.replace("-", "_"))


class Tracking(Section):
    """What is sent to MLflow, and what happens if it does not answer."""

    experiment_prefix: str
    """Prefix of the MLflow experiment and of the registered model. The name of the dataset
    follows."""
    system_metrics: bool
    """Log CPU, GPU and memory usage of each training to MLflow."""
    offline: Literal["fail", "buffer"]
    """What `train`, `evaluate` and `register` do if the tracking server does not answer when they
    start. buffer: they continue, and `heartseg sync` sends their results and registers the model
    later."""


class Privacy(Section):
    """How patients are named outside the prepared dataset."""

    case_ids: Literal["plain", "hashed", "none"]
    """Names of patients, animals and cases in figures and on the tracking server. plain: unchanged;
    hashed: a keyed hash (`heartseg.data.privacy`); none: left out."""


class Params(Section):
    """The whole of params.yaml."""

    pipeline: dict[DatasetName, str]
    """The recipe that the stages of dvc.yaml train for each dataset."""
    phantoms: Phantoms
    """Size and seed of the synthetic datasets."""
    datasets: Datasets
    """Source and split of each dataset."""
    windows: Windows
    """How M-mode recordings are cut into windows."""
    recipe_defaults: RecipeDefaults
    """Values that all recipes share."""
    model_defaults: ModelDefaults
    """Values that all recipes with the same network share."""
    recipes: dict[str, Recipe]
    """The recipes by name. A recipe contains its dataset, model (a name and what differs from the
    defaults), input_size, batch_size, learning_rate, epochs, and what differs from
    `recipe_defaults`."""
    train: Train
    """How a training runs."""
    evaluate: Evaluate
    """How a trained model is evaluated."""
    recording: RecordingConfig
    """How whole M-mode strips are segmented."""
    register_: Annotated[Registers, Field(alias="register")]
    """When a newly registered model becomes champion."""
    tracking: Tracking
    """What is sent to MLflow."""
    privacy: Privacy
    """How patients are named outside the prepared dataset."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Complete each recipe with the defaults."""
        if not isinstance(values, dict) or not isinstance(values.get("recipes"), dict):
            return values
        try:
            RecipeDefaults.model_validate(values.get("recipe_defaults"))
            ModelDefaults.model_validate(values.get("model_defaults"))
        except ValidationError:  # reported once, for the defaults; each recipe would repeat it
            return values | {"recipes": {}}
        recipes = {}
        for name, recipe in values["recipes"].items():
            model = recipe.get("model") if isinstance(recipe, dict) else None
            if isinstance(model, dict):
                own = values["model_defaults"].get(model.get("name"))
                recipe = recipe | {"model": merge(own, model)}
            recipes[name] = merge(values["recipe_defaults"], recipe)
        return values | {"recipes": recipes}

    @model_validator(mode="after")
    def _check(self) -> Params:
        for dataset, recipe in self.pipeline.items():
            if recipe not in self.recipes:
                reason = unknown_name("recipe", recipe, self.recipes)
                raise ValueError(f"pipeline.{dataset}: {reason}")
            if self.recipes[recipe].dataset != dataset:
                raise ValueError(
                    f"pipeline.{dataset}: recipe {recipe} trains on {self.recipes[recipe].dataset}"
                )
        return self

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of that name.

        Raises:
            InputError: There is no such recipe. The message contains the nearest name.
        """
        if name not in self.recipes:
            raise InputError(f"{PARAMS_FILE}: {unknown_name('recipe', name, self.recipes)}")
        return self.recipes[name]


def load_params(path: Path | str = PARAMS_FILE) -> Params:
    """Read and validate params.yaml.

    Raises:
        InputError: The file is missing, is not valid YAML, or contains an unknown key or an invalid
            value. The message contains all of them, and the nearest valid name for each key.
    """
    return read_yaml_as(Params, Path(path))
