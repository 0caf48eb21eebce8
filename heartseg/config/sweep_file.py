"""sweeps/*.yaml as typed, validated objects: what a sweep searches, how, and for how long.

Every key stands in the file; the classes below carry no default, but for `when`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from heartseg.config.nested import leaves
from heartseg.config.params import Params
from heartseg.config.ranges import Choice, LogUniform, Range, Scalar, Uniform
from heartseg.config.recipe import Count, Positive, Recipe, Section, Seed
from heartseg.config.yaml_file import no_such, read_yaml_as
from heartseg.datasets import DATASETS
from heartseg.errors import InputError

Values = dict[str, Scalar]
"""Sampled values by field; a field of the recipe with dots between its levels."""

RECIPE = "recipe"
"""The field that chooses among whole recipes, and so among models."""


class TPE(Section):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), of Optuna."""

    name: Literal["tpe"]
    multivariate: bool
    """Model the fields together instead of each on its own."""
    constant_liar: bool
    """Keep trials that run at the same time apart."""
    startup_trials: Count
    """Random trials before the model is used."""


class CmaEs(Section):
    """CMA-ES, of Optuna; choices are drawn at random beside it."""

    name: Literal["cmaes"]
    startup_trials: Count


class Random(Section):
    name: Literal["random"]


class Grid(Section):
    """All combinations of the choices, each once."""

    name: Literal["grid"]


class Asha(Section):
    """Asynchronous successive halving (Li et al., MLSys 2020), of Optuna, in epochs."""

    name: Literal["asha"]
    min_epochs: Count
    """The first rung; the next ones are each `reduction_factor` times further."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """One trial of so many goes on beyond a rung."""


class Median(Section):
    """Stop a trial that is below the median of the others at the same epoch."""

    name: Literal["median"]
    startup_trials: Count
    min_epochs: Count
    """The first epoch after which a trial can be stopped."""


class NoPruner(Section):
    name: Literal["none"]


class Resources(Section):
    """What one trial takes."""

    workers: Count
    """Workers that train a trial together (DDP)."""
    cpus: Positive
    """CPU cores of each worker."""
    gpus: Annotated[float, Field(ge=0)]
    """GPUs of each worker; a fraction lets several trials share one."""

    @model_validator(mode="after")
    def _check(self) -> Resources:
        if self.gpus > 1:
            raise ValueError("a worker uses one GPU or a part of it; raise workers instead")
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError("workers that train together need a whole GPU each")
        return self


class SweepFile(Section):
    """A file of sweeps/."""

    recipe: str
    """Recipe of params.yaml that every trial starts from."""
    metric: str
    """Validation metric of the epoch that becomes the trial's model."""
    mode: Literal["max", "min"]
    space: Annotated[dict[str, Range], Field(min_length=1)]
    """Fields of the recipe, dots between levels; `recipe` itself chooses among recipes."""
    sampler: Annotated[TPE | CmaEs | Random | Grid, Field(discriminator="name")]
    pruner: Annotated[Asha | Median | NoPruner, Field(discriminator="name")]
    trials: Count | None
    """Trials in all; null: as many as the hours allow."""
    hours: Positive | None
    """Wall-clock budget over all sessions of the sweep; null: none."""
    resources: Resources
    initial_points: list[Values]
    """Points to try first, after the recipe's own values, which take the place of what a point
    leaves out."""
    seed: Seed
    register_: Annotated[bool, Field(alias="register")]
    """Evaluate the winner on held-out patients and register it."""

    @model_validator(mode="after")
    def _check(self) -> SweepFile:
        if self.trials is None and self.hours is None:
            raise ValueError("give trials or hours, or the sweep never ends")
        above: list[str] = []
        for field, searched in self.space.items():
            values = searched.values()
            if not isinstance(searched, Choice) and not values[0] < values[-1]:  # type: ignore[operator]
                raise ValueError(f"space.{field}: the first end must be below the second")
            for other, few in searched.when.items():
                if other not in above:
                    raise ValueError(
                        f"space.{field}: when: {no_such('field above it', other, above)}"
                    )
                for value in few:
                    if value not in self.space[other]:
                        raise ValueError(f"space.{field}: when: {other} is never {value!r}")
            if self.sampler.name == "grid" and isinstance(searched, Uniform | LogUniform):
                raise ValueError(f"space.{field}: a grid needs choice or integers")
            above.append(field)
        return self

    def recipes(self) -> list[str]:
        """Names of all recipes that trials may start from."""
        if RECIPE not in self.space:
            return [self.recipe]
        return [str(name) for name in self.space[RECIPE].values()]

    def active(self, field: str, values: Mapping[str, Scalar]) -> bool:
        """Whether a field is searched, given the values of the fields above it."""
        when = self.space[field].when
        return all(other in values and values[other] in few for other, few in when.items())

    def own_values(self, params: Params) -> Values:
        """The point of the space at which the recipe itself stands."""
        return self.completed({}, params)

    def completed(self, point: Mapping[str, Scalar], params: Params) -> Values:
        """A point, its missing fields taken from the recipe; fields without a meaning left out."""
        values: Values = {}
        for field in self.space:
            if self.active(field, values):
                base = _own(params.recipe(str(values.get(RECIPE, self.recipe))), self.recipe)
                values[field] = point[field] if field in point else base[field]
        return values

    def first_points(self, params: Params) -> list[Values]:
        """The recipe's own point and `initial_points`; for a grid all points of the space."""
        points = [
            self.own_values(params),
            *(self.completed(one, params) for one in self.initial_points),
        ]
        if self.sampler.name == "grid":
            columns = [searched.values() for searched in self.space.values()]
            points += [
                self.completed(dict(zip(self.space, point, strict=True)), params)
                for point in product(*columns)
            ]
        return [point for i, point in enumerate(points) if point not in points[:i]]

    def count(self, params: Params) -> int | None:
        """How many trials there will be; None: until the hours are over."""
        if self.sampler.name == "grid":
            points = len(self.first_points(params))
            return points if self.trials is None else min(points, self.trials)
        return self.trials

    def recipe_for(self, values: Mapping[str, Scalar], params: Params) -> Recipe:
        """The recipe of a trial.

        Raises:
            InputError: the values make no valid recipe.
        """
        name = str(values.get(RECIPE, self.recipe))
        content = params.recipe(name).model_dump(mode="json")
        for field, value in values.items():
            if field != RECIPE:
                _set(content, field, value)
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise InputError(f"{where}: {fault['msg']} (got {fault['input']!r:.60})") from None


def read_sweep(path: Path, params: Params) -> SweepFile:
    """Read a sweep's file and check it against params.yaml.

    Raises:
        InputError: a wrong key or value; a field that the recipe does not have; a value that
            makes no valid recipe; a metric that the dataset cannot give; a first point, or the
            recipe's own, outside of the space.
    """
    sweep = read_yaml_as(SweepFile, path)
    try:
        _check_space(sweep, params)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return sweep


def _check_space(sweep: SweepFile, params: Params) -> None:
    dataset = params.recipe(sweep.recipe).dataset
    spec = DATASETS[dataset]
    metrics = ["dice_mean", *spec.dice_metrics, "val_loss", *spec.errors, *spec.rates]
    if sweep.metric not in metrics:
        raise InputError(f"{no_such('metric', sweep.metric, metrics)} (dataset {dataset})")
    falls = sweep.metric == "val_loss" or sweep.metric in spec.errors
    if falls != (sweep.mode == "min"):
        raise InputError(f"mode: {sweep.metric} is better when {'lower' if falls else 'higher'}")
    if not isinstance(sweep.space.get(RECIPE), Choice | None):
        raise InputError(f"space.{RECIPE} must be a choice of recipes")
    for name in sweep.recipes():
        recipe = params.recipe(name)
        if recipe.dataset != dataset:
            raise InputError(f"space.{RECIPE}: {name} trains on {recipe.dataset}, not {dataset}")
        _check_fields(sweep, params, name)
        searched = sweep.space.get("epochs")
        longest = max(searched.values()) if searched else recipe.epochs  # type: ignore[type-var]
        if not isinstance(sweep.pruner, NoPruner) and sweep.pruner.min_epochs >= longest:  # type: ignore[operator]
            raise InputError(
                f"pruner.min_epochs: {sweep.pruner.min_epochs} of {longest} epochs (recipe {name}) "
                "stops no trial; lower it, or take name: none"
            )
    for point in [{}, *sweep.initial_points]:
        if unknown := [field for field in point if field not in sweep.space]:
            raise InputError(
                f"initial_points: {no_such('searched field', unknown[0], sweep.space)}"
            )
        for field, value in sweep.completed(point, params).items():
            if value not in sweep.space[field]:
                whose = (
                    "initial_points" if field in point else f"the value of recipe {sweep.recipe}"
                )
                raise InputError(
                    f"space.{field} does not hold {value!r} ({whose}), which is tried first; "
                    "widen it"
                )


def _check_fields(sweep: SweepFile, params: Params, name: str) -> None:
    """Each field exists in a recipe, and the recipe is valid at each of its values."""
    known = _own(params.recipe(name), name)
    for field, searched in sweep.space.items():
        if field == RECIPE or name not in searched.when.get(RECIPE, [name]):
            continue
        if field == "dataset":
            raise InputError("space.dataset: trials on other data could not be compared")
        if field not in known:
            raise InputError(f"space: {no_such('field', field, known)} (recipe {name})")
        for value in searched.values():
            try:
                recipe = sweep.recipe_for({RECIPE: name, field: value}, params)
                recipe.worker_batch(sweep.resources.workers)
            except InputError as error:
                raise InputError(f"space.{field}: {value!r}: {error}") from None


def _own(recipe: Recipe, name: str) -> Values:
    """A recipe's values by field, and its name."""
    content = recipe.model_dump(mode="json")
    return {RECIPE: name} | {".".join(keys): value for keys, value in leaves(content)}


def _set(content: dict[str, Any], field: str, value: Scalar) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        content = content[parent]
    content[last] = value
