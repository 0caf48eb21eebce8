"""Errors that the user can fix. Commands report them in one message and exit with code 2."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heartseg.text import printable

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Error numbers of a disk that is full, over its quota, or read-only."""
REMEDIES = {
    errno.EACCES: "Change its permissions",
    errno.EPERM: "Change its permissions",
    errno.ENOSPC: "Free some disk space",
    errno.EDQUOT: "Free some disk space",
    errno.EROFS: "Its disk is read-only: use another one",
    errno.EISDIR: "It is a folder: name a file",
    errno.ENOTDIR: "A part of the path is not a folder: correct it",
    errno.EEXIST: "Something else has this name: choose another",
    errno.ENOTEMPTY: "It is not empty: name another folder",
    errno.ENAMETOOLONG: "Use a shorter name",
}


class InputError(Exception):
    """Invalid input. The message names the input, what is wrong with it, and the remedy."""


class StorageError(InputError):
    """A full or read-only disk. Only the file being written is lost; existing files are intact."""


class Stopped(Exception):
    """The command was told to stop (SIGTERM) and has saved what it needs to continue."""


class BadFilesError(InputError):
    """Several files of a dataset are invalid. The message lists all of them.

    Attributes:
        problems: One line per file, "path: reason. Remedy."
    """

    def __init__(self, dataset: str, problems: Sequence[str]):
        self.problems = list(problems)
        listing = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"{len(self.problems)} problem(s) in the {dataset} source, nothing was written:\n"
            f"{listing}\n"
            "Fix or remove these files, or leave them out with --skip-bad or with "
            f"datasets.{dataset}.skip_bad: true in params.yaml "
            "(they are then listed in the prepared dataset's metadata)."
        )


@contextmanager
def catch_full_disk(path: Path | None) -> Iterator[None]:
    """Turn the error of a full or read-only disk into a `StorageError`.

    Args:
        path: File or folder that is written inside the block; None if it is not known. The
            operating system's error names a file only if the file could not be opened.

    Raises:
        StorageError: If the disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        known = path or error.filename
        name = known or f"a file in {Path.cwd()} or {tempfile.gettempdir()}"
        raise StorageError(
            f"{name} could not be written: {error.strerror}. Free some disk space or make it "
            "writable, then run the same command again: no existing file is lost, and a training "
            "continues from its last checkpoint"
        ) from error


def unreadable(path: Path | str, error: OSError) -> InputError:
    """Return the error, with its remedy, for a file or folder that cannot be read."""
    if error.errno == errno.ENOENT:
        return InputError(f"{path}: is missing. Check the name, or copy it there.")
    return InputError(f"{path}: cannot be read ({error.strerror or error}). {_remedy(error)}.")


def unwritable(path: Path | str, error: OSError) -> InputError:
    """Return the error, with its remedy, for a file or folder that cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror or error}). {_remedy(error)}.")


def _remedy(error: OSError) -> str:
    return REMEDIES.get(error.errno or 0, "Check the disk or network drive that holds it")


@contextmanager
def catch_write_errors(path: Path) -> Iterator[None]:
    """Turn any error of the operating system into an `InputError` that names `path`.

    Use it for files and folders that the user has named.

    Raises:
        InputError: If the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def printing_notes() -> Iterator[list[str]]:
    """Print the notes of a command at its end, even if the command fails.

    Yields:
        A list to append notes to. Equal notes are printed once.
    """
    notes: list[str] = []
    try:
        yield notes
    finally:
        for note in dict.fromkeys(notes):
            print(f"note: {printable(note, lines=True)}")


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, for a list of problems.

    Messages of other libraries start with the class of the error and have at most 200 characters.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = printable(" ".join(text.split()))
    if isinstance(error, InputError):
        return text  # not cut: the remedy is at its end
    return f"{type(error).__name__}: {text}"[:200]
