"""The result of one check of `heartseg doctor`."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from heartseg.errors import InputError, one_line

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Name of the check.
        where: Machine or service that was checked.
        status: "ok", "warn" if a run works nevertheless, or "fail" if it does not.
        seen: What the check has found.
        fix: What to do about it. Empty if the status is "ok".
    """

    name: str
    where: str
    status: Status
    seen: str
    fix: str = ""


def attempt(name: str, where: str, run: Callable[[], list[Check]]) -> list[Check]:
    """Run checks and turn an exception into a failed check, so that the other checks still run.

    Args:
        name: Name of the failed check.
        where: Machine or service of the failed check.
        run: Function that runs the checks.
    """
    try:
        return run()
    except InputError as error:
        return [Check(name, where, "fail", one_line(error), "read the message")]
    except Exception as error:
        traceback.print_exc()
        fix = "this may be a bug of heartseg: report it with the traceback above"
        return [Check(name, where, "fail", one_line(error), fix)]
