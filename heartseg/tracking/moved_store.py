"""Update of a SQLite store that was moved or copied with its repository.

MLflow keeps the locations of artifacts as absolute URIs in the database. The artifacts are in
mlartifacts beside the database, so both are moved together. The URIs then still refer to the old
folder, which MLflow would create again and write to.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from heartseg.errors import InputError

FOLDER = "mlartifacts"
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_folder(database: Path) -> Path:
    """Return the folder of the artifacts of a SQLite store."""
    return database.parent / FOLDER


def former_folders(database: Path) -> list[Path]:
    """Return the folders other than `artifact_folder` to which heartseg's experiments refer.

    Experiments whose artifacts are not in a folder mlartifacts belong to other programs or to a
    server, and are ignored.
    """
    if not database.exists():
        return []
    current = artifact_folder(database)
    try:
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    except sqlite3.Error:  # not a store of MLflow; connecting to it reports that
        return []
    found = set()
    for name, location in rows:
        place = _local(str(location))
        if place is not None and str(place).endswith(f"/{FOLDER}/{name}"):
            found.add(Path(str(place).removesuffix(f"/{name}")))
    return sorted(folder for folder in found - {current} if not _same(folder, current))


def follow_move(database: Path) -> str | None:
    """Update the locations of artifacts in a store that was moved or copied.

    Returns:
        A message about the change, or None if the store was not moved.

    Raises:
        InputError: If the artifacts were left behind or the database cannot be written.
    """
    folders = former_folders(database)
    if not folders:
        return None
    current, shown = artifact_folder(database), ", ".join(map(str, folders))
    left = [folder for folder in folders if folder.is_dir()]
    if left and not current.exists():
        raise InputError(
            f"{database} was moved or copied without its artifacts, which are in {left[0]}. Copy "
            f"or move that folder to {current} as well"
        )
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for folder in folders:
                for table, column in _COLUMNS:
                    _rewrite(connection, table, column, folder.as_uri(), current.as_uri())
    except sqlite3.Error as error:
        raise InputError(
            f"{database} was moved or copied and refers to artifacts in {shown}; it cannot be "
            f"updated ({error}). Make it writable"
        ) from None
    return (
        f"{database} was moved or copied: it now uses the artifacts in {current} instead of {shown}"
    )


def _rewrite(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    """Replace the folder `old` by `new` at the start of the URIs in a column."""
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
        (new, len(old) + 1, len(old) + 1, f"{old}/"),
    )


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:
        return False
