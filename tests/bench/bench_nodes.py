"""How many trials a minute a sweep does on one, two and three nodes of one CPU each.

Run: pytest -s tests/bench/bench_nodes.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from heartseg.config.params import load_params
from tests.examples import ROOT, small_recipe, write_disks
from tests.nodes import HEAD, Nodes, namespaces_permitted
from tests.test_nodes import SWEEP

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TRIALS = 12


def write_repository(place: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=4)
    content["recipes"] = {"short": recipe.model_dump(mode="json")}
    content["pipeline"] = {"camus": "short"}
    content["tracking"]["system_metrics"] = False
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    (place / "sweeps").mkdir()
    sweep = SWEEP | {"recipe": "short", "trials": TRIALS}
    (place / "sweeps/small.yaml").write_text(yaml.safe_dump(sweep))
    write_disks(place, train=400, val=4)


def test_trials_a_minute(tmp_path: Path) -> None:
    write_repository(tmp_path)
    nodes = Nodes(tmp_path, namespaces_permitted())
    rates: list[float] = []
    try:
        nodes.add_switch()
        nodes.add_machine(HEAD)
        nodes.start_ray(HEAD)
        nodes.await_ray(HEAD)
        for number in (2, 3, 4):
            nodes.add_machine(number)
            nodes.start_ray(number)
            nodes.await_ray(number)
            log = nodes.folder / "sweep.log"
            driver = nodes.drive("sweep", "sweeps/small.yaml", "--fresh", log=log)
            assert driver.wait(600) == 0, log.read_text()[-3000:]
            # From the first epoch that any trial has done to the last: without the start of Ray.
            times = [
                json.loads(line)["time"]
                for path in (tmp_path / "runs/sweeps/small/trials").glob("*/journal.jsonl")
                for line in path.read_text().splitlines()
            ]
            rates.append(60 * TRIALS / (max(times) - min(times)))
    finally:
        nodes.close()
    for count, rate in enumerate(rates, start=1):
        print(f"\n{count} node(s): {rate:.0f} trials/min, {rate / rates[0]:.2f} times one node's")
