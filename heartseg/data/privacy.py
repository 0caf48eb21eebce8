"""How patients and animals are named in what leaves the place where the data are.

What leaves is whatever goes to the tracking server (tags, params, artifacts, the overlays of the
journal) and every figure, since figures go on into slides. `privacy.case_ids` in params.yaml
decides: plain, hashed or none. Each name passes `CaseNames` where the text or the figure is made.
The prepared dataset and the tables in results/ stay as they are: they lie beside the images.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.errors import InputError
from heartseg.text import csv_text, unescape_formula

if TYPE_CHECKING:
    import pandas as pd

    from heartseg.config.params import Privacy

KEY_VARIABLE = "HEARTSEG_CASE_ID_KEY"
"""Environment variable that names the key's file, for a group or a container."""
KEY_FILE = Path("heartseg/case_ids.key")  # below the user's folder of settings
KEY_BYTES = 32
ID_COLUMNS = ("case_id", "patient")
WITHHELD = "withheld"
HASHED = re.compile(r"id-[0-9a-f]{12}")
"""A patient as `_show` hashes it."""


@dataclass(frozen=True)
class CaseNames:
    """The names of one prepared dataset as others may see them.

    Attributes:
        mode: privacy.case_ids.
        key: of the hash, empty unless hashed.
        shown_as: by real name, those of the dataset's cases and patients.
    """

    mode: str
    key: bytes = field(repr=False)
    shown_as: dict[str, str] = field(repr=False)

    def shown(self, name: str) -> str:
        """A patient, animal or case as it may be shown; the same one always looks the same."""
        return self.shown_as.get(name) or _show(name, self.mode, self.key)

    def text(self, text: str) -> str:
        """Free text, such as another library's error, with every name of the dataset replaced."""
        if self.mode == "plain" or not self.shown_as:
            return text
        longest_first = sorted(self.shown_as, key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first))
        return re.sub(
            f"(?<![A-Za-z0-9])(?:{names})(?![A-Za-z0-9])", lambda m: self.shown(m[0]), text
        )

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table whose columns case_id and patient may be shown.

        Unless plain, its rows are sorted by what they hold: rows in the order of the real names
        would tell who is who to anybody with a list of the patients.
        """
        if self.mode == "plain":
            return table
        columns = [column for column in ID_COLUMNS if column in table]
        table = table.assign(**{column: table[column].map(self.shown) for column in columns})
        order = [*columns, *(str(column) for column in table if column not in columns)]
        return table.sort_values(order, key=lambda column: column.astype(str), ignore_index=True)

    @contextmanager
    def shareable(self, tables: Sequence[Path]) -> Iterator[list[Path]]:
        """Copies of CSV files that may leave, under the same names, in a folder for that time."""
        import pandas as pd

        with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
            copies = [Path(folder) / path.name for path in tables]
            for path, copy in zip(tables, copies, strict=True):
                text = pd.read_csv(path, dtype=str, keep_default_na=False)  # digits stay as written
                shown = self.table(text.map(unescape_formula))
                copy.write_text(csv_text(shown), encoding="utf-8")
            yield copies


def case_names(privacy: Privacy, prepared: Path) -> CaseNames:
    """How the cases of a prepared dataset may be shown.

    Raises:
        InputError: the file is not readable, or the key cannot be read or made.
    """
    from heartseg.data.prepared import read_names

    mode = privacy.case_ids
    key = read_key() if mode == "hashed" else b""
    shown_as = {}
    for case_id, patient, view, phase in read_names(prepared):
        shown_as[patient] = shown = _show(patient, mode, key)
        # View and phase help whoever looks at a figure; anything else in a name may be a birthday.
        known = mode == "hashed" and case_id == f"{patient}_{view}_{phase}"
        shown_as[case_id] = f"{shown}_{view}_{phase}" if known else _show(case_id, mode, key)
    return CaseNames(mode, key, shown_as)


def shown_name(privacy: Privacy, name: str) -> str:
    """A patient as runs show it, whatever the dataset."""
    mode = privacy.case_ids
    return _show(name, mode, read_key() if mode == "hashed" else b"")


def _show(name: str, mode: str, key: bytes) -> str:
    if mode == "plain":
        return name
    if mode == "none":
        return WITHHELD
    # 48 bits: two of 100,000 patients have the same with a probability of 1 in 50,000.
    return f"id-{hmac.digest(key, name.encode(), 'sha256').hex()[:12]}"


# --- the key ------------------------------------------------------------------------------


def key_path() -> Path:
    """The key's file: outside of every repository, so that it is never committed or copied."""
    if named := os.environ.get(KEY_VARIABLE):
        return Path(named)
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / KEY_FILE


def read_key() -> bytes:
    """The key of the hash, made on first use: without it, nobody can try all patient numbers.

    Raises:
        InputError: it cannot be read or written, is too short, or everybody may read it.
    """
    path = key_path()
    try:
        if not path.exists():
            _make_key(path)
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise InputError(
            f"{path}: the key of the case ids cannot be read or made ({error.strerror}). Let "
            f"{KEY_VARIABLE} name a file that can, or set privacy.case_ids to none"
        ) from None
    if mode & 0o007:
        raise InputError(f"{path}: everybody may read this key; run `chmod 600 {path}`")
    if len(key) < KEY_BYTES:
        raise InputError(
            f"{path}: has {len(key)} bytes, a key has {KEY_BYTES} or more. Restore it, or remove "
            "it: a new one is made then, and the same patient gets another name"
        )
    return key


def _make_key(path: Path) -> None:
    """Whole, or not at all; of several processes that meet here, the first one's counts."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
