"""CSV tables: supported variants, and errors with their cause."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from heartseg.data.csv_table import read_table, rows_of
from heartseg.errors import InputError

KNOWN = ("recording", "animal", "mm_per_row", "s_per_column")
NUMBERS = KNOWN[2:]
ROW = dict(zip(KNOWN, ("strip", "m1", "0.0206", "0.00083334"), strict=True))
POINTS = "recording,animal,mm_per_row,s_per_column\nstrip,m1,0.0206,0.00083334\n"
COMMAS = POINTS.replace(",", ";").replace(".", ",")


def read(path: Path, content: bytes, ignore_unknown: bool = False) -> list[dict[str, str]]:
    path.write_bytes(content)
    table = read_table(path, KNOWN[:1], KNOWN[1:], numbers=NUMBERS, ignore_unknown=ignore_unknown)
    return rows_of(table)


@pytest.mark.parametrize(
    "content",
    [
        POINTS.encode(),
        COMMAS.encode(),
        COMMAS.replace("\n", "\r\n").encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + COMMAS.replace(";", "\t").encode("utf-16-le"),
        ("sep=;\n" + COMMAS).encode(),
        POINTS.replace(",", "\t").encode(),
    ],
    ids=["points", "commas", "byte order mark", "utf-16", "sep", "tabs"],
)
def test_tables_written_by_excel(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "a.csv", content) == [ROW]


@pytest.mark.parametrize(
    "header",
    [
        "Recording;ANIMAL;mm per row;S per column",
        "recording;animal;mm,per,row;s,per,column",  # commas instead of underscores
        "recording ;animal;MM-per-row;s.per.column",
    ],
)
@pytest.mark.parametrize("ignore_unknown", [False, True])
def test_column_names_match_ignoring_case_and_separators(
    tmp_path: Path, header: str, ignore_unknown: bool
) -> None:
    text = f"{header}\n{COMMAS.partition(chr(10))[2]}"
    assert read(tmp_path / "a.csv", text.encode(), ignore_unknown) == [ROW]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("recording,mm_per_row,MM per row\nstrip,1,2\n", "more than one column mm_per_row"),
        ("recording,mm_pr_row\nstrip,1\n", "'mm_pr_row'"),
        ("recording,mm_per_row\nstrip,1,206\n", "3 cells for 2"),
        ("recording;mm_per_row;s_per_column\nstrip;0,0206;0.001\n", "points .* commas"),
        ("recording,mm_per_row\nstrip,\"1,206\"\n", "thousands"),
        ("animal\nm1\n", "no column recording"),
    ],
)  # fmt: skip
def test_ambiguous_tables_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"a\.csv: .*{reason}"):
        read(tmp_path / "a.csv", text.encode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\3\4...", "Office"),
        (b"recording\n\xe4\n", "line 2.*UTF-8"),
        (b"a\0b\0c", "not a text file"),
    ],
)
def test_files_that_are_not_text_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=rf"a\.csv: .*{reason}"):
        read(tmp_path / "a.csv", content)
