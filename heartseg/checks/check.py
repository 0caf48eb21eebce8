"""One thing that `heartseg doctor` looked at."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from heartseg.errors import InputError, one_line

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was seen of one thing that a run needs.

    Attributes:
        name: of what was looked at.
        where: the machine or service.
        status: "warn" is worth knowing, with "fail" a run cannot go well.
        seen: the facts.
        mend: what to do; empty where all is well.
    """

    name: str
    where: str
    status: Status
    seen: str
    mend: str = ""


def attempt(name: str, where: str, look: Callable[[], list[Check]]) -> list[Check]:
    """The checks of `look`; a fault nobody thought of is one that failed, and the rest goes on."""
    try:
        return look()
    except InputError as error:
        return [Check(name, where, "fail", one_line(error), "read the message")]
    except Exception as error:
        traceback.print_exc()
        mend = "this may be a bug of heartseg: report it with the traceback above"
        return [Check(name, where, "fail", one_line(error), mend)]
