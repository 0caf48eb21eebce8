"""Names of patients and animals in data that leave the site.

These are everything that is sent to the tracking server (tags, params, artifacts, overlays), and
all figures, because figures are copied into slides. `privacy.case_ids` in params.yaml is plain,
hashed or none. Code that writes such a text or figure converts names with `CaseNames`. The prepared
dataset and the tables in results/ contain the real names, because they stay beside the images.
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
"""Environment variable with the path of the key, for a group of users or a container."""
KEY_FILE = Path("heartseg/case_ids.key")  # below the user's configuration folder
KEY_BYTES = 32
ID_COLUMNS = ("case_id", "patient")
WITHHELD = "withheld"
HASHED = re.compile(r"id-[0-9a-f]{12}")
"""A hashed patient (see `_display_name`)."""


@dataclass(frozen=True)
class CaseNames:
    """Display names of the cases and patients of a prepared dataset.

    Attributes:
        mode: Value of privacy.case_ids.
        key: Key of the hash; empty unless `mode` is "hashed".
        shown_as: Display name by real name, of cases and patients.
    """

    mode: str
    key: bytes = field(repr=False)
    shown_as: dict[str, str] = field(repr=False)

    def shown(self, name: str) -> str:
        """Return the display name of a patient, animal or case, which is always the same."""
        return self.shown_as.get(name) or _display_name(name, self.mode, self.key)

    def text(self, text: str) -> str:
        """Replace every name of the dataset in free text, such as the error of a library."""
        if self.mode == "plain" or not self.shown_as:
            return text
        longest_first = sorted(self.shown_as, key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first))
        return re.sub(
            f"(?<![A-Za-z0-9])(?:{names})(?![A-Za-z0-9])", lambda m: self.shown(m[0]), text
        )

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Replace the names in the columns case_id and patient of a table.

        Unless `mode` is "plain", the rows are sorted by their new contents. In the order of the
        real names, they would identify the patients to anyone who has a list of them.
        """
        if self.mode == "plain":
            return table
        columns = [column for column in ID_COLUMNS if column in table]
        table = table.assign(**{column: table[column].map(self.shown) for column in columns})
        order = [*columns, *(str(column) for column in table if column not in columns)]
        return table.sort_values(order, key=lambda column: column.astype(str), ignore_index=True)

    @contextmanager
    def shareable(self, tables: Sequence[Path]) -> Iterator[list[Path]]:
        """Copy CSV files with display names into a temporary folder, under the same file names.

        Args:
            tables: Paths of the CSV files.

        Yields:
            Paths of the copies, which are removed at the end.
        """
        import pandas as pd

        with tempfile.TemporaryDirectory(prefix="heartseg-") as folder:
            copies = [Path(folder) / path.name for path in tables]
            for path, copy in zip(tables, copies, strict=True):
                text = pd.read_csv(path, dtype=str, keep_default_na=False)  # digits stay as written
                shown = self.table(text.map(unescape_formula))
                copy.write_text(csv_text(shown), encoding="utf-8")
            yield copies


def case_names(privacy: Privacy, prepared: Path) -> CaseNames:
    """Return the display names of a prepared dataset.

    Args:
        privacy: Section `privacy` of params.yaml.
        prepared: Path of the prepared dataset.

    Raises:
        InputError: The file cannot be read, or the key cannot be read or created.
    """
    from heartseg.data.prepared import read_names

    mode = privacy.case_ids
    key = read_key() if mode == "hashed" else b""
    shown_as = {}
    for case_id, patient, view, phase in read_names(prepared):
        shown_as[patient] = shown = _display_name(patient, mode, key)
        # View and phase are kept to explain figures. Other parts of a name may be a date of birth.
        known = mode == "hashed" and case_id == f"{patient}_{view}_{phase}"
        shown_as[case_id] = (
            f"{shown}_{view}_{phase}" if known else _display_name(case_id, mode, key)
        )
    return CaseNames(mode, key, shown_as)


def shown_name(privacy: Privacy, name: str) -> str:
    """Return the display name of a patient of any dataset."""
    mode = privacy.case_ids
    return _display_name(name, mode, read_key() if mode == "hashed" else b"")


def _display_name(name: str, mode: str, key: bytes) -> str:
    if mode == "plain":
        return name
    if mode == "none":
        return WITHHELD
    # With 48 bits, two of 100,000 patients have the same hash with a probability of 1 in 50,000.
    return f"id-{hmac.digest(key, name.encode(), 'sha256').hex()[:12]}"


# --- the key ------------------------------------------------------------------------------


def key_path() -> Path:
    """Return the path of the key, which is outside repositories so that it is never committed."""
    if named := os.environ.get(KEY_VARIABLE):
        return Path(named)
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / KEY_FILE


def read_key() -> bytes:
    """Read the key of the hash, or create it on first use.

    The key prevents others from finding a patient by hashing all patient numbers.

    Raises:
        InputError: The key cannot be read or written, is too short, or is readable by everyone.
    """
    path = key_path()
    try:
        if not path.exists():
            _make_key(path)
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise InputError(
            f"{path}: the key of the case ids cannot be read or created ({error.strerror}). Set "
            f"{KEY_VARIABLE} to another path, or set privacy.case_ids to none"
        ) from None
    if mode & 0o007:
        raise InputError(f"{path}: this key is readable by everyone. Run `chmod 600 {path}`")
    if len(key) < KEY_BYTES:
        raise InputError(
            f"{path}: has {len(key)} bytes, but a key has {KEY_BYTES} or more. Restore it. If you "
            "remove it, a new key is created, and patients get other names"
        )
    return key


def _make_key(path: Path) -> None:
    """Create the key atomically. If several processes do so, the key of the first one is kept."""
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
