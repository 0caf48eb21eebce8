"""Tests of the record of the machines that a run used."""

from __future__ import annotations

import torch

from heartseg.training.machine import machine_tags, record_machine


def test_a_run_resumed_elsewhere_records_both_machines(tmp_path, monkeypatch):
    assert machine_tags(tmp_path) == {}
    for threads in (2, 2, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        record_machine(tmp_path, "cpu", "ray", 1)
    tags = machine_tags(tmp_path)
    assert tags["machine.threads"] == "2 then 8"
    assert (tags["machine.device"], tags["machine.workers"]) == ("cpu", "1")
    assert tags["machine.cpu"]
