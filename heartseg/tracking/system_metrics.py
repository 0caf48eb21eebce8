"""MLflow's system metrics of this machine, averaged over its GPUs."""

from __future__ import annotations

import re
from collections import defaultdict

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_GPU = re.compile(r"gpu_\d+_")


class Monitor(SystemMetricsMonitor):
    """MLflow's monitor with metrics averaged over GPUs, instead of five metrics per GPU."""

    def aggregate_metrics(self) -> dict[str, float]:
        """Return the metrics of the last interval, with means over all GPUs."""
        return mean_over_gpus(super().aggregate_metrics())


def mean_over_gpus(metrics: dict[str, float]) -> dict[str, float]:
    """Replace gpu_0_utilization_percentage, gpu_1_… by their mean gpu_utilization_percentage."""
    groups: dict[str, list[float]] = defaultdict(list)
    for name, value in metrics.items():
        groups[_GPU.sub("gpu_", name)].append(value)
    return {name: sum(values) / len(values) for name, values in groups.items()}
