"""The ranges that a field of a recipe is searched in."""

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
    """1e-3 is a number for people and for YAML 1.2, but text for PyYAML."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


class Choice(Section):
    choice: Annotated[list[Annotated[Scalar, BeforeValidator(_number)]], Field(min_length=1)]
    when: dict[str, list[Scalar]] = Field(default_factory=dict)
    """Searched only where each of these fields, which stand above, has one of these values."""

    def values(self) -> list[Scalar]:
        """All values that a check must try; of a continuous range some."""
        return self.choice

    def __contains__(self, value: Scalar) -> bool:
        return any(_same(value, one) for one in self.choice)


class Uniform(Section):
    uniform: tuple[Finite, Finite]
    when: dict[str, list[Scalar]] = Field(default_factory=dict)

    def values(self) -> list[Scalar]:
        return _probes(*self.uniform)

    def __contains__(self, value: Scalar) -> bool:
        return _is_within(value, *self.uniform)


class LogUniform(Section):
    loguniform: tuple[Positive, Positive]
    when: dict[str, list[Scalar]] = Field(default_factory=dict)

    def values(self) -> list[Scalar]:
        return _probes(*self.loguniform)

    def __contains__(self, value: Scalar) -> bool:
        return _is_within(value, *self.loguniform)


class Integers(Section):
    integers: tuple[int, int]
    """Smallest and largest value, both possible."""
    step: Count
    when: dict[str, list[Scalar]] = Field(default_factory=dict)

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


def _kind_of(content: Any) -> str | None:
    if isinstance(content, Section):  # when it is written out
        return type(content).__name__
    kinds = {
        kind.__name__.lower(): kind.__name__ for kind in (Choice, Uniform, LogUniform, Integers)
    }
    found = [kinds[key] for key in content if key in kinds] if isinstance(content, dict) else []
    return found[0] if len(found) == 1 else None


Range = Annotated[
    Annotated[Choice, Tag("Choice")]
    | Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")]
    | Annotated[Integers, Tag("Integers")],
    Discriminator(_kind_of, "range", "give one of choice, uniform, loguniform and integers"),
]


def _same(value: Scalar, other: Scalar) -> bool:
    """Equal, where 10 is 10.0 but true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _is_within(value: Scalar, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _probes(low: float, high: float) -> list[Scalar]:
    """The ends and one between, which a field of whole numbers refuses."""
    return [low, low + (high - low) / math.pi, high]
