"""Search ranges of a recipe's fields in a sweep file."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from heartseg.config.recipe import Count, Positive, Section

Finite = Annotated[float, Field(allow_inf_nan=False)]

Scalar = bool | int | float | str | None
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def _number(value: Any) -> Any:
    """Convert text such as "1e-3", which YAML 1.2 reads as a number and PyYAML as text."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


class SearchRange(Section):
    """What all ranges have in common."""

    when: dict[str, list[Scalar]] = Field(default_factory=dict)
    """Condition: the field is searched only if each of these fields has one of the listed values.
    The fields must come earlier in `space`. Default: {}, always."""


class Choice(SearchRange):
    """A list of values."""

    choice: Annotated[list[Annotated[Scalar, BeforeValidator(_number)]], Field(min_length=1)]
    """The possible values: numbers, texts, true, false or null."""

    def values(self) -> list[Scalar]:
        """Return the values with which the recipe is validated: all, or some of a continuous
        range."""
        return self.choice

    def __contains__(self, value: Scalar) -> bool:
        return any(_same(value, one) for one in self.choice)


class Uniform(SearchRange):
    """A continuous range with a uniform distribution."""

    uniform: tuple[Finite, Finite]
    """Smallest and largest value."""

    def values(self) -> list[Scalar]:
        return _probes(*self.uniform)

    def __contains__(self, value: Scalar) -> bool:
        return _is_within(value, *self.uniform)


class LogUniform(SearchRange):
    """A continuous range whose logarithm has a uniform distribution."""

    loguniform: tuple[Positive, Positive]
    """Smallest and largest value, both above 0."""

    def values(self) -> list[Scalar]:
        return _probes(*self.loguniform)

    def __contains__(self, value: Scalar) -> bool:
        return _is_within(value, *self.loguniform)


class Integers(SearchRange):
    """A range of integers at equal distances."""

    integers: tuple[int, int]
    """Smallest and largest value, both included."""
    step: Count
    """Distance between two values. The largest value must be the smallest plus a multiple of it."""

    @model_validator(mode="after")
    def _check(self) -> Integers:
        low, high = self.integers
        if (high - low) % self.step:
            raise ValueError(f"{high} is not {low} plus a multiple of step {self.step}")
        return self

    def values(self) -> list[Scalar]:
        return list(range(self.integers[0], self.integers[1] + 1, self.step))

    def __contains__(self, value: Scalar) -> bool:
        return any(_same(value, one) for one in self.values())


def _class_name(content: Any) -> str | None:
    """Return the name of a range's class, by its key; None unless it has exactly one such key."""
    if isinstance(content, SearchRange):  # pydantic also calls this on serialisation
        return type(content).__name__
    classes = {kind.__name__.lower(): kind.__name__ for kind in SearchRange.__subclasses__()}
    found = [classes[key] for key in content if key in classes] if isinstance(content, dict) else []
    return found[0] if len(found) == 1 else None


Range = Annotated[
    Annotated[Choice, Tag("Choice")]
    | Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")]
    | Annotated[Integers, Tag("Integers")],
    Discriminator(_class_name, "range", "give one of choice, uniform, loguniform and integers"),
]


def _same(value: Scalar, other: Scalar) -> bool:
    """Compare two values; 10 equals 10.0, but true does not equal 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _is_within(value: Scalar, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _probes(low: float, high: float) -> list[Scalar]:
    """Return both ends and a value between them, which a field of integers rejects."""
    return [low, low + (high - low) / math.pi, high]
