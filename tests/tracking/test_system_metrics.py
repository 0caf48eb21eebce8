"""System metrics: their number does not depend on the number of GPUs."""

from __future__ import annotations

from heartseg.tracking.system_metrics import mean_over_gpus


def test_gpus_are_averaged_and_all_else_is_kept():
    found = mean_over_gpus(
        {
            "cpu_utilization_percentage": 50.0,
            "gpu_0_utilization_percentage": 90.0,
            "gpu_1_utilization_percentage": 70.0,
            "gpu_10_utilization_percentage": 80.0,
            "gpu_0_power_usage_watts": 300.0,
        }
    )
    assert found == {
        "cpu_utilization_percentage": 50.0,
        "gpu_utilization_percentage": 80.0,
        "gpu_power_usage_watts": 300.0,
    }
