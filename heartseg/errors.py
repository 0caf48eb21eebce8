"""Errors that the user can mend, told in one message and exit code 2."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heartseg.text import printable

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What a disk says that is full, over its quota, or read-only."""
REMEDIES = {
    errno.EACCES: "Change its permissions",
    errno.EPERM: "Change its permissions",
    errno.ENOSPC: "Make room",
    errno.EDQUOT: "Make room",
    errno.EROFS: "Its disk is read-only: use another one",
    errno.EISDIR: "It is a folder: name a file",
    errno.ENOTDIR: "A part of the path is no folder: correct it",
    errno.EEXIST: "Something else has this name: choose another",
    errno.ENOTEMPTY: "It is not empty: name another folder",
    errno.ENAMETOOLONG: "Use a shorter name",
}


class InputError(Exception):
    """Something the user gave is wrong; the message names what, why and the remedy."""


class StorageError(InputError):
    """A disk is full or read-only: what was being written is lost, not what was there."""


class Stopped(Exception):
    """The command was asked to end (SIGTERM), and has kept what is needed to go on."""


class BadFilesError(InputError):
    """Several files of a dataset are wrong; all of them are listed.

    Attributes:
        problems: one line per file, "path: reason. Remedy."
    """

    def __init__(self, dataset: str, problems: Sequence[str]):
        self.problems = list(problems)
        listing = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"{len(self.problems)} problem(s) in the {dataset} source, nothing was written:\n"
            f"{listing}\n"
            "Mend or remove these files, or leave them out with --skip-bad or with "
            f"datasets.{dataset}.skip_bad: true in params.yaml "
            "(they are then listed in the prepared dataset's metadata)."
        )


@contextmanager
def catch_full_disk(path: Path | None) -> Iterator[None]:
    """Around writing a file, for which a full or read-only disk is the user's to mend.

    Args:
        path: the file or folder; None if it is not known. The error itself names the file only if
            it could not be opened.

    Raises:
        StorageError: the disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        known = path or error.filename
        name = known or f"a file in {Path.cwd()} or {tempfile.gettempdir()}"
        raise StorageError(
            f"{name} could not be written: {error.strerror}. Make room or make it writable, then "
            "run the same command again: nothing that was there is lost, and a training goes on "
            "from its last checkpoint"
        ) from error


def unreadable(path: Path | str, error: OSError) -> InputError:
    """The error of a file or folder that the operating system does not give, with its remedy."""
    if error.errno == errno.ENOENT:
        return InputError(f"{path}: is missing. Check the name, or copy it there.")
    return InputError(f"{path}: cannot be read ({error.strerror or error}). {_remedy(error)}.")


def unwritable(path: Path | str, error: OSError) -> InputError:
    """The error of a file or folder that the operating system does not take, with its remedy."""
    return InputError(f"{path}: cannot be written ({error.strerror or error}). {_remedy(error)}.")


def _remedy(error: OSError) -> str:
    return REMEDIES.get(error.errno or 0, "Check the disk or network drive that holds it")


@contextmanager
def catch_write_errors(path: Path) -> Iterator[None]:
    """Around writing where the user wants it, for which any refusal is the user's to mend.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def printing_notes() -> Iterator[list[str]]:
    """Collect what a command notices, and print it at the end, also if the command fails.

    Yields:
        the list to add notes to; each is printed once.
    """
    notes: list[str] = []
    try:
        yield notes
    finally:
        for note in dict.fromkeys(notes):
            print(f"note: {printable(note, lines=True)}")


def one_line(error: BaseException) -> str:
    """An error, of another library with its kind, short enough for a list of problems."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = printable(" ".join(text.split()))
    if isinstance(error, InputError):
        return text  # whole: what to do stands at its end
    return f"{type(error).__name__}: {text}"[:200]
