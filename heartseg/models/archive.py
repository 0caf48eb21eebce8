"""What an archive of torch.export may hold before torch reads it.

torch.export.load was made for files of one's own: it unpickles old layouts and objects, evaluates
the expressions of symbolic sizes as Python, and finds an operator by any path below `torch`, `os`
among them. So only what our models are made of is let through.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

import torch

EXAMPLE = "data/sample_inputs/model.pt"
GRAPH = "models/model.json"
RECORD = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(serialization_id|version)|"
    r"\.format_version|\.storage_alignment|"
    r"data/constants/(model_constants_config\.json|tensor_\d+)|"
    r"data/weights/(model_weights_config\.json|weight_\d+)|"
    rf"{re.escape(EXAMPLE)}|{re.escape(GRAPH)}"
)
TENSOR = re.compile(r"(weight|tensor)_\d+")
OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+(\.\w+)?|_operator\.(add|sub|mul|neg|floordiv|truediv|mod|pow|"
    r"eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)|torch\.sym_(int|float|max|min|not|sum)"
)
EXTENT = re.compile(r"L\['\w+'\]\.size\(\)\[\d+\]|torch\.sym_(max|min|int|not)|\b(and|or|not)\b")
"""What conditions on sizes, which torch runs as Python, are made of, beside PLAIN arithmetic."""
PLAIN = re.compile(r"[\d\s()+\-*/%<>=!,]*")
TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
"""Types that arguments and results may be nested in."""
NAMES = re.compile(r'null|\[("\w+"(, )?)*\]')
SYMBOL = re.compile(r"'\w+'")
"""The name of a symbolic size in sympy's notation."""
WORD = re.compile(
    r"Symbol|Integer|Rational|Mul|Add|Pow|Max|Min|FloorDiv|CleanDiv|CeilDiv|Mod|PythonMod|"
    r"Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not|"
    r"positive|nonnegative|integer|True|False|\d+"
)


def check_archive(content: bytes) -> None:
    """See that reading a model.pt2 runs nothing but torch's operators.

    MLflow leaves one pickled thing, the example images: tensors, which the unpickler for weights
    reads, and that runs no code.

    Raises:
        ValueError: it holds something else; or whatever a broken archive raises.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names) or len({name.partition("/")[0] for name in names}) != 1:
            raise ValueError("it has several records of one name, or several folders")
        for name in names:
            inside = name.partition("/")[2]
            if not RECORD.fullmatch(inside):
                raise ValueError(f"{name} is none of its records")
            if inside == EXAMPLE:
                if example := archive.read(name):
                    torch.load(io.BytesIO(example), weights_only=True)
            elif inside == GRAPH:
                _check_graph(json.loads(archive.read(name)))
            elif inside.endswith("_config.json"):
                for entry in json.loads(archive.read(name))["config"].values():
                    if entry["use_pickle"] or not TENSOR.fullmatch(entry["path_name"]):
                        raise ValueError(f"{name} has pickled objects")


def _check_graph(found: Any) -> None:
    """Look at every operator and every symbolic size, however deep."""
    if isinstance(found, list):
        for part in found:
            _check_graph(part)
    elif isinstance(found, dict):
        operator, size = found.get("target"), found.get("expr_str")
        if "inputs" in found and operator is not None and not OPERATOR.fullmatch(operator):
            raise ValueError(f"{operator!r} is no operator of ours")
        if size is not None and not _is_size(size):
            raise ValueError(f"{size!r} is no symbolic size")
        for guard in found.get("guards_code") or ():
            if not PLAIN.fullmatch(EXTENT.sub("", guard)):
                raise ValueError(f"{guard!r} is no condition on sizes")
        for key in ("in_spec", "out_spec"):
            if found.get(key):
                _check_tree(json.loads(found[key])[1])
        for part in found.values():
            _check_graph(part)


def _check_tree(tree: dict[str, Any]) -> None:
    """torch imports what other types and contexts name."""
    if tree["type"] not in TREES or not NAMES.fullmatch(tree["context"] or "null"):
        raise ValueError(f"{tree['type']} is no type of arguments")
    for child in tree["children_spec"]:
        _check_tree(child)


def _is_size(text: str) -> bool:
    words = re.split(r"[(),= -]+", SYMBOL.sub("", text))
    return all(not word or WORD.fullmatch(word) for word in words)
