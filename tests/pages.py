"""The fenced blocks of the documentation's pages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.examples import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    """Contents of a page's fenced blocks of one language."""
    return re.findall(
        rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )


def command_lines(page: Path) -> list[str]:
    """The commands of a page's bash blocks, in order, without comments."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    return [command for command in commands if command]


def written_files(page: Path) -> dict[str, str]:
    """Files that a page asks the reader to create: YAML blocks with a title, by their path."""
    found = re.findall(r'^```yaml title="([^"]+)"\n(.*?)^```', page.read_text(), re.DOTALL | re.M)
    return dict(found)
