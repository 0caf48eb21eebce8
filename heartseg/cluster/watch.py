"""Monitoring of Ray while a command waits for it: has Ray ended, and are resources free?"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from heartseg.errors import InputError, Stopped

POLL_SECONDS = 1.0
LOST_SECONDS = 3.0
"""Time after which a local Ray that accepts no connection is considered dead."""
RECONNECT_SECONDS = 30.0
"""The same for a cluster, where the GCS may restart. Ray itself ends this process after 60 s."""
FIRST_REPORT_SECONDS = 5.0
"""Time after which waiting for free resources is reported for the first time."""
REPORT_SECONDS = 60.0
"""Time between two further reports."""
GIVE_UP_SECONDS = 10.0
"""Time that the main thread gets to react to the interrupt. It may hang in a call into Ray."""
WAKE = signal.SIGUSR2


@contextmanager
def watched(
    should_stop: Callable[[], bool] = lambda: False, give_up: Callable[[], object] | None = None
) -> Iterator[None]:
    """Watch Ray while the main thread waits for it.

    Without this, Ray ends the process one minute after the raylet or the GCS has died, before the
    process can close its MLflow runs. A cluster without free CPUs or GPUs would look like a
    training that does not start.

    Args:
        should_stop: Function that is polled while the cluster has no free resources.
        give_up: Function that is called in another thread if Ray has ended and the main thread
            hangs in a call into Ray. The process then ends with exit code 2.

    Raises:
        InputError: If this machine's raylet or the cluster's GCS has ended.
        Stopped: If `should_stop` returned True.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or ray.util.client.ray.is_connected():
        yield
        return
    watcher = _Watcher(should_stop, give_up)
    before = signal.signal(WAKE, signal.default_int_handler)
    watcher.start()
    try:
        yield
    except (InputError, Stopped):
        raise
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            watcher.find_cause()
        if watcher.error is not None:
            raise watcher.error from None
        raise
    finally:
        watcher.stop()
        signal.signal(WAKE, before)


class _Watcher:
    """A thread that polls Ray every second and interrupts the main thread if it must end.

    Attributes:
        error: The exception that the main thread is to raise, or None.
    """

    def __init__(self, should_stop: Callable[[], bool], give_up: Callable[[], object] | None):
        self.error: InputError | Stopped | None = None
        self._should_stop = should_stop
        self._give_up = give_up
        context = ray.get_runtime_context()
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        host, _, port = context.gcs_address.rpartition(":")
        self._addresses = {
            "raylet": (own["NodeManagerAddress"], int(own["NodeManagerPort"])),
            "GCS": (host.strip("[]"), int(port)),
        }
        self._job = context.get_job_id()
        self._patience = RECONNECT_SECONDS if os.environ.get("RAY_ADDRESS") else LOST_SECONDS
        self._silent_since: dict[str, float] = {}
        self._waiting_since: float | None = None
        self._next_report = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2 * LOST_SECONDS)

    def find_cause(self) -> None:
        """Set `error` if Ray has ended. Call this after Ray has raised an exception."""
        self._patience = LOST_SECONDS
        while self.error is None and not self._all_answer():
            time.sleep(POLL_SECONDS)

    def _run(self) -> None:
        while self.error is None:
            if self._stop.wait(POLL_SECONDS):
                return
            if self._all_answer():
                self._check_resources()
        # Only a KeyboardInterrupt ends a wait in Ray's C++ code.
        _thread.interrupt_main(WAKE)
        if self._stop.wait(GIVE_UP_SECONDS) or self._give_up is None:
            return
        print(f"error: {self.error}", file=sys.stderr, flush=True)
        self._give_up()
        os._exit(2)

    def _all_answer(self) -> bool:
        now = time.monotonic()
        for name, address in self._addresses.items():
            if _accepts(address):
                self._silent_since.pop(name, None)
            elif now - self._silent_since.setdefault(name, now) >= self._patience:
                self.error = InputError(
                    f"Ray's {name} at {address[0]}:{address[1]} has ended: it was killed, or the "
                    "machine ran out of memory. Run the same command again to continue from the "
                    "last checkpoint"
                )
        return not self._silent_since

    def _check_resources(self) -> None:
        missing = self._missing_resources()
        now = time.monotonic()
        if not missing:
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since, self._next_report = now, now + FIRST_REPORT_SECONDS
        if self._should_stop():
            self.error = Stopped()
        elif now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            print(describe_wait(missing), file=sys.stderr, flush=True)

    def _missing_resources(self) -> dict[str, float]:
        """Return the amount by name of the resources that this job waits for.

        A job that already holds resources of the same kind does not wait: it only has fewer
        workers than it could have.
        """
        table = ray.util.placement_group_table()
        # The id of a placement group ends with the id of its job.
        own = [group for key, group in table.items() if key.endswith(self._job)]
        created = [group["bundles"][0] for group in own if group["state"] == "CREATED"]
        for group in own:
            bundles = list(group["bundles"].values())
            if group["state"] in ("PENDING", "RESCHEDULING") and bundles[0] not in created:
                totals = {name: sum(b.get(name, 0) for b in bundles) for name in ("CPU", "GPU")}
                return {name: amount for name, amount in totals.items() if amount}
        return {}


def wait_for_one(resources: dict[str, float]) -> None:
    """Return when one node of the cluster has these resources free.

    Call this inside `watched`, which reports the waiting.

    Args:
        resources: Amount by name, such as {"CPU": 1}.
    """
    group = ray.util.placement_group([resources])
    try:
        while not group.wait(POLL_SECONDS):
            pass
    finally:
        ray.util.remove_placement_group(group)


def describe_wait(missing: dict[str, float]) -> str:
    """Return a line about the resources that a command waits for.

    Args:
        missing: Amount by name, such as {"CPU": 4}.
    """
    free, total = ray.available_resources(), ray.cluster_resources()
    wanted = ", ".join(f"{amount:g} {_plural(name, amount)}" for name, amount in missing.items())
    has = ", ".join(
        f"{free.get(name, 0):g} free of {total.get(name, 0):g}"
        + (f" {_plural(name, total.get(name, 0))}" if len(missing) > 1 else "")
        for name in missing
    )
    return f"waiting for {wanted}; the cluster has {has} (press Ctrl-C to stop)"


def _plural(name: str, amount: float) -> str:
    return name if amount == 1 else f"{name}s"


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=LOST_SECONDS).close()
    except OSError:
        return False
    return True
