"""The command line as a whole: the table of commands, help, errors and exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from heartseg.__main__ import COMMANDS, app, module_of
from heartseg.cli import run_app, run_command
from tests.examples import ROOT

HEAVY = ("torch", "ray", "mlflow", "pandas")


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line in this process, in the root of the repository."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            run_command(lambda _: run_app(app, "heartseg", words))
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_every_command_module_is_in_the_table():
    modules = [*(ROOT / "heartseg").glob("*.py"), ROOT / "heartseg/config/__main__.py"]
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules
        if re.search("^app = make_app", path.read_text(), re.MULTILINE)
    }
    assert found - {"heartseg.__main__"} == {module_of(name) for name in COMMANDS}


def test_help_lists_every_command_below_its_panel(run):
    code, out, _ = run("--help")
    assert code == 0
    assert set(re.findall(r"^  ([a-z-]+)  ", out, re.MULTILINE)) >= set(COMMANDS)
    assert re.search(r"^M-mode:\n  recording .*\n  windows ", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_plain_text_outside_of_a_terminal(run, name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: heartseg {name} ")
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 80


def test_help_has_panels_on_a_terminal():
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "heartseg", "--help"]
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=child, cwd=ROOT, env=environment)
    os.close(child)
    text = b""
    try:
        while part := os.read(parent, 4096):
            text += part
    except OSError:  # Linux's end of file, once the process has ended
        pass
    assert process.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
    assert re.search("╭─ Provenance ─+╮", plain)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_no_heavy_library(words):
    code = (
        "import sys, heartseg.__main__ as program\n"
        f"sys.argv[1:] = {words}\n"
        "try: program.main()\n"
        f"finally: print(*sorted(sys.modules.keys() & set({HEAVY})), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout
    assert done.stderr.split() == []


def test_version(run):
    assert run("--version") == (0, f"heartseg {metadata.version('heartseg')}\n", "")


def test_no_command_is_an_error_that_shows_the_commands(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "reproduce" in err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("trian camus", "'train'"),
        ("train", "'RECIPE'"),
        ("train camus mmode", "mmode"),
        ("train absent", "absent"),
        ("train camus --in-proces", "--in-process"),
        ("prepare cams", "'mmode-quality'"),
        ("phantom", "--picture"),
        ("sweep", "sweep --help"),
        ("sweep apply", "'FILE'"),
        ("sweep sweeps/absent.yaml", "sweeps/absent.yaml"),
        ("sweep apply sweeps/absent.yaml", "sweeps/absent.yaml"),
        ("sweep sweeps/camus.yaml --frish", "--fresh"),
        ("crossval camus --folds 1", "--folds"),
        ("crossval camus --folds two", "--folds"),
        ("serve models:/any@champion --port 0", "--port"),
        ("serve models:/any@champion --batch-wait-ms inf", "--batch-wait-ms"),
        ("predict models:/any@champion a.png", "'--out'"),
        ("predict models:/any@champion a.png --out b --spacing 1", "--spacing"),
        ("predict models:/any@champion a.png --out b --spacing 1 -1", "-1"),
        ("recording models:/any@champion a.png --out b --species cat", "'mouse', 'human'"),
        ("recording models:/any@champion a.png --out b --mm-per-row nan", "--mm-per-row"),
        ("recording models:/any@champion a.png --out b --heart-rates 9 8", "--heart-rates"),
        ("lineage", "--patient"),
        ("lineage models:/any@champion --patient p1", "--patient"),
        ("config", "config --help"),
        ("config show absent", "absent"),
    ],
)
def test_wrong_arguments_end_with_code_2_and_a_plain_message(run, line, named):
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert named in err
    assert "Traceback" not in err
    assert not re.search("[╭│╰]", err)


def test_a_module_and_its_command_are_the_same(run):
    """Including the name that their help shows."""
    for words in (["sweep", "apply"], ["config", "show"], ["case-ids"]):
        module = module_of(words[0])
        done = subprocess.run(
            [sys.executable, "-m", module, *words[1:], "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "80"},
            check=True,
        )
        assert done.stdout == run(*words, "--help")[1]


@pytest.mark.parametrize("words", [["sweeps/camus.yaml"], ["run", "sweeps/camus.yaml"]])
def test_sweep_runs_a_file_with_and_without_its_subcommand(run, monkeypatch, words):
    from heartseg.sweeps import job

    class Reached(Exception):
        pass

    def check_data(job: job.Job) -> None:
        raise Reached(job.path)

    monkeypatch.setattr(job, "check_data", check_data)
    for order in (words, [*words, "--fresh"], [*words[:-1], "--fresh", words[-1]]):
        with pytest.raises(Reached, match=r"sweeps/camus\.yaml"):
            run_app(app, "heartseg", ["sweep", *order])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["heartseg", "cro"], {"crossval"}),
        (["heartseg", "sweep", "ap"], {"apply"}),
        (["heartseg", "serve", "--batch-"], {"--batch-size", "--batch-wait-ms"}),
        (["heartseg", "recording", "--species", "m"], {"mouse"}),
    ],
)
def test_completion_in_the_shell(words, expected):
    done = subprocess.run(
        [sys.executable, "-m", "heartseg"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {
            "_HEARTSEG_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        check=False,
    )
    assert set(done.stdout.split()) == expected


def test_interruption_and_signal_have_codes_of_their_own(capsys):
    from heartseg.errors import Stopped

    for error, code in ((KeyboardInterrupt, 130), (Stopped, 143), (RuntimeError, 1)):

        def fail(_: object, error: type[BaseException] = error) -> None:
            raise error

        with pytest.raises(SystemExit) as end:
            run_command(fail)
        assert end.value.code == code
        assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_ctrl_c_inside_a_command_reaches_the_exit_code(run, monkeypatch):
    """Typer itself would turn it into an exit without a message."""
    from heartseg import doctor

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run_checks", interrupt)
    code, _, err = run("doctor")
    assert code == 130
    assert "last checkpoint" in err


def test_path_of_the_repository_is_used(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "heartseg.reproduce", "models:/any@champion"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "params.yaml" in done.stderr
