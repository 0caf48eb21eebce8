"""What all commands share: their typer app, common arguments, and exit codes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.main import get_command

from heartseg.errors import InputError, Stopped, catch_full_disk
from heartseg.gc_tuning import relax_gc
from heartseg.text import printable

T = TypeVar("T")


# --- arguments ----------------------------------------------------------------------------


def positive(value: T) -> T:
    """Refuse numbers that are not finite and above 0; the callback of an option.

    Args:
        value: Number, tuple of numbers, or None if the option is not given.
    """
    numbers: Any = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if number is not None and not 0 < number < float("inf"):
            raise typer.BadParameter(f"{number} is not a positive number.")
    return value


ModelUri = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Registered model, for example models:/heartseg-camus@champion."
    ),
]
ModelOrFolder = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Registered model, for example models:/heartseg-camus@champion, or a pulled folder.",
    ),
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe of params.yaml.")]
InProcess = Annotated[
    bool, typer.Option("--in-process", help="Train in this process without Ray, for debugging.")
]


# --- running ------------------------------------------------------------------------------


def make_app(**settings: Any) -> typer.Typer:
    """Return the typer app of a command.

    Args:
        settings: Further arguments of `typer.Typer`.
    """
    defaults: dict[str, Any] = {
        "add_completion": False,
        "pretty_exceptions_enable": False,
        "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
    }
    return typer.Typer(**defaults | settings)


def paragraphs(doc: str | None) -> str:
    """Join the lines of each paragraph of a docstring, so that help fits any terminal."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", doc or "").strip()


def build_command(app: typer.Typer) -> Any:
    """Return the parser of an app.

    It shows help in panels on a terminal and as plain text elsewhere, for example in a log.
    """
    app.rich_markup_mode = "rich" if sys.stdout.isatty() else None
    return get_command(app)


def run_app(app: typer.Typer, path: str, argv: Sequence[str] | None = None) -> None:
    """Parse arguments and run the function of a command.

    Args:
        app: App of the command.
        path: Words that start the command, for example "heartseg train".
        argv: Arguments; None for those of the process.

    Raises:
        InputError: An argument is missing, unknown or invalid.
        SystemExit: The command ended itself, for example after ``--help``.
    """
    command = build_command(app)
    try:
        with command.make_context(path, list(sys.argv[1:] if argv is None else argv)) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except typer.TyperException as error:
        failed = getattr(error, "ctx", None)
        message = error.format_message().replace("Value error, ", "")  # pydantic's prefix
        raise InputError(
            f"{message}\nSee `{failed.command_path if failed else path} --help`."
        ) from None


def run_command(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command's `main` with exit code 2 for errors that the user can fix and 1 for ours."""
    relax_gc()
    try:
        with catch_full_disk(None):
            main(None)
    except InputError as error:
        print(f"error: {printable(str(error), lines=True)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; run the same command again to continue (a training continues from its "
            "last checkpoint)",
            file=sys.stderr,
        )
        sys.exit(130)
    except Stopped:
        print("stopped by a signal; run the same command again to continue", file=sys.stderr)
        sys.exit(143)  # the code of a process that SIGTERM ended: a scheduler starts it again
    except Exception as error:
        from heartseg.tracking.faults import explain_store_fault

        if (fault := explain_store_fault(error)) is not None:
            print(f"error: {printable(fault, lines=True)}", file=sys.stderr)
            sys.exit(2)
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def confirm(question: str) -> bool:
    """Ask a question on the terminal. Anything but a clear yes is a no, as is no terminal."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False
