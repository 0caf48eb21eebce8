"""sweeps/*.yaml as typed, validated objects: what a sweep searches, how, and for how long.

Every key must be present in the file, except for `when`.
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
from heartseg.config.yaml_file import read_yaml_as, unknown_name
from heartseg.datasets import DATASETS
from heartseg.errors import InputError

Values = dict[str, Scalar]
"""Sampled values by field of the recipe, with dots between levels."""

RECIPE = "recipe"
"""Name of the field that chooses among whole recipes, and thereby among models."""


class TPE(Section):
    """Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

    name: Literal["tpe"]
    """Selects this sampler."""
    multivariate: bool
    """Model all fields jointly instead of each field separately."""
    constant_liar: bool
    """Penalise points near those of running trials, so that parallel trials differ."""
    startup_trials: Count
    """Number of random trials before the estimator is used."""


class CmaEs(Section):
    """Optuna's CMA-ES. Fields with a choice are sampled at random."""

    name: Literal["cmaes"]
    """Selects this sampler."""
    startup_trials: Count
    """Number of random trials before CMA-ES is used."""


class Random(Section):
    """Independent random points."""

    name: Literal["random"]
    """Selects this sampler."""


class Grid(Section):
    """Every combination of the values, once. Ranges must be choice or integers."""

    name: Literal["grid"]
    """Selects this sampler."""


class Asha(Section):
    """Optuna's asynchronous successive halving (Li et al., MLSys 2020), in epochs."""

    name: Literal["asha"]
    """Selects this pruner."""
    min_epochs: Count
    """Epochs of the first rung. Each further rung has `reduction_factor` times as many."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """At each rung, the best 1 / reduction_factor of the trials continue."""


class Median(Section):
    """Stop a trial that is worse than the median of the other trials at the same epoch."""

    name: Literal["median"]
    """Selects this pruner."""
    startup_trials: Count
    """Number of trials that must be complete before a trial can be stopped."""
    min_epochs: Count
    """Number of epochs before a trial can be stopped."""


class NoPruner(Section):
    """Every trial runs to its end."""

    name: Literal["none"]
    """Selects this pruner."""


class Resources(Section):
    """Resources of one trial."""

    workers: Count
    """Number of workers that train a trial together (DDP)."""
    cpus: Positive
    """CPU cores of each worker."""
    gpus: Annotated[float, Field(ge=0)]
    """GPUs of each worker, at most 1. With a fraction, several trials share a GPU."""

    @model_validator(mode="after")
    def _check(self) -> Resources:
        if self.gpus > 1:
            raise ValueError("a worker uses at most one GPU; increase workers instead")
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError("workers that train together need a whole GPU each")
        return self


class SweepFile(Section):
    """A file in sweeps/."""

    recipe: str
    """The recipe of params.yaml from which every trial starts."""
    metric: str
    """Validation metric to optimise: dice_mean, the Dice of a label, val_loss, or a clinical error
    or classification rate of the dataset. Its value at the epoch that becomes the trial's model
    counts."""
    mode: Literal["max", "min"]
    """Whether a higher (max) or a lower (min) value of the metric is better."""
    space: Annotated[dict[str, Range], Field(min_length=1)]
    """Range of each searched field of the recipe, with dots between levels (model.dropout). The
    field `recipe` chooses among whole recipes."""
    sampler: Annotated[TPE | CmaEs | Random | Grid, Field(discriminator="name")]
    """How points of the space are chosen."""
    pruner: Annotated[Asha | Median | NoPruner, Field(discriminator="name")]
    """Which trials are stopped early."""
    trials: Count | None
    """Total number of trials; null: as many as `hours` allows."""
    hours: Positive | None
    """Wall-clock limit in hours, summed over all times that the sweep runs; null: none."""
    resources: Resources
    """Resources of one trial."""
    initial_points: list[Values]
    """Points to try first, after the recipe's own values. Fields that a point leaves out have the
    recipe's value."""
    seed: Seed
    """Seed of the sampler."""
    register_: Annotated[bool, Field(alias="register")]
    """Evaluate the best trial's model on held-out patients and register it."""

    @model_validator(mode="after")
    def _check(self) -> SweepFile:
        if self.trials is None and self.hours is None:
            raise ValueError("set trials or hours, otherwise the sweep never ends")
        earlier: list[str] = []
        for field, searched in self.space.items():
            values = searched.values()
            if not isinstance(searched, Choice) and not values[0] < values[-1]:  # type: ignore[operator]
                raise ValueError(f"space.{field}: the first value must be below the second")
            for other, allowed in searched.when.items():
                if other not in earlier:
                    reason = unknown_name("earlier field", other, earlier)
                    raise ValueError(f"space.{field}: when: {reason}")
                for value in allowed:
                    if value not in self.space[other]:
                        raise ValueError(f"space.{field}: when: {other} is never {value!r}")
            if self.sampler.name == "grid" and isinstance(searched, Uniform | LogUniform):
                raise ValueError(f"space.{field}: a grid needs choice or integers")
            earlier.append(field)
        return self

    def recipes(self) -> list[str]:
        """Return the names of all recipes from which trials may start."""
        if RECIPE not in self.space:
            return [self.recipe]
        return [str(name) for name in self.space[RECIPE].values()]

    def is_active(self, field: str, values: Mapping[str, Scalar]) -> bool:
        """Return whether a field is searched, given the values of the earlier fields."""
        when = self.space[field].when
        return all(other in values and values[other] in allowed for other, allowed in when.items())

    def complete_point(self, point: Mapping[str, Scalar], params: Params) -> Values:
        """Add the recipe's values of missing fields to a point, and drop inactive fields."""
        values: Values = {}
        for field in self.space:
            if self.is_active(field, values):
                base = _flatten(params.recipe(str(values.get(RECIPE, self.recipe))), self.recipe)
                values[field] = point[field] if field in point else base[field]
        return values

    def first_points(self, params: Params) -> list[Values]:
        """Return the points to try first, without duplicates.

        These are the recipe's own point, `initial_points` and, for a grid, all points of the space.
        """
        points = [self.complete_point(one, params) for one in ({}, *self.initial_points)]
        if self.sampler.name == "grid":
            columns = [searched.values() for searched in self.space.values()]
            points += [
                self.complete_point(dict(zip(self.space, point, strict=True)), params)
                for point in product(*columns)
            ]
        return [point for i, point in enumerate(points) if point not in points[:i]]

    def trial_count(self, params: Params) -> int | None:
        """Return the number of trials, or None if only `hours` limits it."""
        if self.sampler.name == "grid":
            points = len(self.first_points(params))
            return points if self.trials is None else min(points, self.trials)
        return self.trials

    def recipe_for(self, values: Mapping[str, Scalar], params: Params) -> Recipe:
        """Return the recipe of a trial.

        Args:
            values: Sampled values of the trial.
            params: Content of params.yaml.

        Raises:
            InputError: The recipe is not valid with these values.
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
    """Read a sweep file and validate it together with params.yaml.

    Raises:
        InputError: The file contains an unknown key, an invalid value, a field that the recipe does
            not have, a value with which the recipe is not valid, or a metric that the dataset does
            not have; or an initial point or the recipe's own values are outside the space.
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
        raise InputError(f"{unknown_name('metric', sweep.metric, metrics)} (dataset {dataset})")
    mode = "min" if sweep.metric == "val_loss" or sweep.metric in spec.errors else "max"
    if sweep.mode != mode:
        raise InputError(f"mode must be {mode} for metric {sweep.metric}")
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
                "stops no trial; lower it, or set pruner to {name: none}"
            )
    for point in [{}, *sweep.initial_points]:
        if unknown := [field for field in point if field not in sweep.space]:
            raise InputError(
                f"initial_points: {unknown_name('searched field', unknown[0], sweep.space)}"
            )
        for field, value in sweep.complete_point(point, params).items():
            if value not in sweep.space[field]:
                source = "initial_points" if field in point else f"recipe {sweep.recipe}"
                raise InputError(
                    f"space.{field} does not contain {value!r} (from {source}), which is tried "
                    "first; extend the range"
                )


def _check_fields(sweep: SweepFile, params: Params, name: str) -> None:
    """Check that a recipe has all searched fields and is valid with each of their values."""
    known = _flatten(params.recipe(name), name)
    for field, searched in sweep.space.items():
        if field == RECIPE or name not in searched.when.get(RECIPE, [name]):
            continue
        if field == "dataset":
            raise InputError("space.dataset: trials on different data cannot be compared")
        if field not in known:
            raise InputError(f"space: {unknown_name('field', field, known)} (recipe {name})")
        for value in searched.values():
            try:
                recipe = sweep.recipe_for({RECIPE: name, field: value}, params)
                recipe.worker_batch(sweep.resources.workers)
            except InputError as error:
                raise InputError(f"space.{field}: {value!r}: {error}") from None


def _flatten(recipe: Recipe, name: str) -> Values:
    """Return a recipe's values by field, and its name under `RECIPE`."""
    content = recipe.model_dump(mode="json")
    return {RECIPE: name} | {".".join(keys): value for keys, value in leaves(content)}


def _set(content: dict[str, Any], field: str, value: Scalar) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        content = content[parent]
    content[last] = value
