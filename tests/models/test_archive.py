"""What torch would run or unpickle while it reads a model.pt2 is refused unread."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable

import pytest
import torch

from heartseg.errors import InputError
from heartseg.models.exported import load_program
from tests.models.test_exported import Bomb, archive, changed, program

__all__ = ["archive", "program"]

pytestmark = pytest.mark.slow  # torch.export takes seconds to be imported


def with_record(content: bytes, name: str, record: bytes) -> bytes:
    made = io.BytesIO(content)
    with zipfile.ZipFile(made, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/{name}", record)
    return made.getvalue()


def with_graph(content: bytes, change: Callable[[dict], object]) -> bytes:
    def edit(name: str, old: bytes) -> bytes | None:
        if not name.endswith("models/model.json"):
            return None
        graph = json.loads(old)
        change(graph)
        return json.dumps(graph).encode()

    return changed(content, edit)


def with_constant(content: bytes, path_name: str) -> bytes:
    def edit(name: str, old: bytes) -> bytes | None:
        if not name.endswith("model_weights_config.json"):
            return None
        config = json.loads(old)
        next(iter(config["config"].values()))["path_name"] = path_name
        return json.dumps(config).encode()

    return changed(content, edit)


def nodes(graph: dict) -> list[dict]:
    return graph["graph_module"]["graph"]["nodes"]


def size_of(graph: dict) -> dict:
    """The first symbolic size of a graph."""
    waiting: list = [graph]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "expr_str" in part:
                return part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    raise AssertionError("no symbolic size")


def hooked(graph: dict) -> None:
    signature = graph["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature["in_spec"])
    spec[1]["type"] = "collections.defaultdict"
    signature["in_spec"] = json.dumps(spec)


ATTACKS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "weights of the old layout": lambda content, bomb: with_record(
        content, "data/weights/model.pt", bomb
    ),
    "constants of the old layout": lambda content, bomb: with_record(
        content, "data/constants/model.pt", bomb
    ),
    "the layout before 2.8": lambda content, bomb: with_record(
        content, "serialized_state_dict.pt", bomb
    ),
    "machine code": lambda content, bomb: with_record(
        content, "data/aotinductor/model/model.so", b"\x7fELF"
    ),
    "an opaque object": lambda content, bomb: with_constant(
        with_record(content, "data/constants/opaque_obj_0", bomb), "opaque_obj_0"
    ),
    "a path out of the archive": lambda content, bomb: with_constant(content, "../weight_0"),
    "an operator by another path": lambda content, bomb: with_graph(
        content, lambda graph: nodes(graph)[0].update(target="torch.serialization.os.system")
    ),
    "a size that is Python": lambda content, bomb: with_graph(
        content, lambda graph: size_of(graph).update(expr_str="__import__('os').getpid()")
    ),
    "a size that sympy would look up": lambda content, bomb: with_graph(
        content, lambda graph: size_of(graph).update(expr_str="eval(chr(49))")
    ),
    "guards": lambda content, bomb: with_graph(
        content, lambda graph: graph.update(guards_code=["L['images'].size()[2] < print(1)"])
    ),
    "arguments of a type to be imported": lambda content, bomb: with_graph(content, hooked),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refused_unread(archive, tmp_path, attack):
    bomb = io.BytesIO()
    torch.save({"weight": Bomb(tmp_path / "torch")}, bomb)
    for poison in (bomb.getvalue(), pickle.dumps(Bomb(tmp_path / "pickle"))):
        content = ATTACKS[attack](archive, poison)
        assert content != archive
        with pytest.raises(InputError, match=r"x: its model\.pt2 is no model without pickle"):
            load_program(content, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_there_twice_is_refused(archive):
    """Two readers may each take another one."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = with_record(archive, "data/weights/weight_0", b"1234")
    with pytest.raises(InputError, match="several records of one name"):
        load_program(content, "x")
