"""Watches Ray while a command waits for it: is it still there, and is there room to run?"""

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

LOOK_SECONDS = 1.0
LOST_SECONDS = 3.0
"""A local Ray that has not accepted a connection for so long is gone."""
RECONNECT_SECONDS = 30.0
"""The same for a cluster, whose GCS may be restarted. Ray itself ends this process after 60."""
FIRST_SECONDS = 5.0
GIVE_UP_SECONDS = 10.0
"""The main thread may be in a call of Ray's that no signal interrupts; it is given so long."""
AGAIN_SECONDS = 60.0
"""When waiting for free resources is reported, and how often after that."""
WAKE = signal.SIGUSR2


@contextmanager
def watched(
    should_stop: Callable[[], bool] = lambda: False, give_up: Callable[[], object] | None = None
) -> Iterator[None]:
    """Watch Ray while the main thread waits for it.

    Without this, the death of the raylet or of the GCS ends the process after a minute, before it
    can close its MLflow runs, and a cluster without free CPUs or GPUs looks like a training that
    does not start.

    Args:
        should_stop: is asked while the cluster has no room for the work.
        give_up: is called, in another thread, if Ray has ended and the main thread hangs in it;
            then the process ends with exit code 2.

    Raises:
        InputError: this machine's raylet, or the cluster's GCS, has ended.
        Stopped: `should_stop` was true.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or ray.util.client.ray.is_connected():
        yield
        return
    watch = _Watch(should_stop, give_up)
    before = signal.signal(WAKE, signal.default_int_handler)
    watch.start()
    try:
        yield
    except (InputError, Stopped):
        raise
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            watch.look_for_cause()
        if watch.end is not None:
            raise watch.end from None
        raise
    finally:
        watch.stop()
        signal.signal(WAKE, before)


class _Watch:
    """A thread that looks every second, and interrupts the main thread when it must end.

    Attributes:
        end: what the main thread is to raise; None while all is well.
    """

    def __init__(self, should_stop: Callable[[], bool], give_up: Callable[[], object] | None):
        self.end: InputError | Stopped | None = None
        self._should_stop = should_stop
        self._give_up = give_up
        context = ray.get_runtime_context()
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        host, _, port = context.gcs_address.rpartition(":")
        self._doors = {
            "raylet": (own["NodeManagerAddress"], int(own["NodeManagerPort"])),
            "GCS": (host.strip("[]"), int(port)),
        }
        self._job = context.get_job_id()
        self._patience = RECONNECT_SECONDS if os.environ.get("RAY_ADDRESS") else LOST_SECONDS
        self._silent_since: dict[str, float] = {}
        self._waiting_since: float | None = None
        self._next_word = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2 * LOST_SECONDS)

    def look_for_cause(self) -> None:
        """Ray has raised an error: find out whether the cause is that it is gone."""
        self._patience = LOST_SECONDS
        while self.end is None and not self._all_answer():
            time.sleep(LOOK_SECONDS)

    def _run(self) -> None:
        while self.end is None:
            if self._stop.wait(LOOK_SECONDS):
                return
            if self._all_answer():
                self._look_for_room()
        # Ray's waiting in C++ returns for a KeyboardInterrupt only.
        _thread.interrupt_main(WAKE)
        if self._stop.wait(GIVE_UP_SECONDS) or self._give_up is None:
            return
        print(f"error: {self.end}", file=sys.stderr, flush=True)
        self._give_up()
        os._exit(2)

    def _all_answer(self) -> bool:
        now = time.monotonic()
        for name, door in self._doors.items():
            if _accepts(door):
                self._silent_since.pop(name, None)
            elif now - self._silent_since.setdefault(name, now) >= self._patience:
                self.end = InputError(
                    f"Ray's {name} at {door[0]}:{door[1]} has ended: it was killed, or the machine "
                    "ran out of memory. The same command goes on from the last checkpoint"
                )
        return not self._silent_since

    def _look_for_room(self) -> None:
        needed = self._lacking()
        now = time.monotonic()
        if not needed:
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since, self._next_word = now, now + FIRST_SECONDS
        if self._should_stop():
            self.end = Stopped()
        elif now >= self._next_word:
            self._next_word = now + AGAIN_SECONDS
            print(waiting(needed), file=sys.stderr, flush=True)

    def _lacking(self) -> dict[str, float]:
        """What this job has asked for and not got, none of which it has already."""
        table = ray.util.placement_group_table()
        # The id of a placement group ends with that of the job that asked for it.
        mine = [group for key, group in table.items() if key.endswith(self._job)]
        has = [group["bundles"][0] for group in mine if group["state"] == "CREATED"]
        for group in mine:
            bundles = list(group["bundles"].values())
            if group["state"] in ("PENDING", "RESCHEDULING") and bundles[0] not in has:
                totals = {name: sum(b.get(name, 0) for b in bundles) for name in ("CPU", "GPU")}
                return {name: amount for name, amount in totals.items() if amount}
        return {}


def wait_for_one(resources: dict[str, float]) -> None:
    """Return when the cluster has these resources free on one node; `watched` reports waiting."""
    group = ray.util.placement_group([resources])
    try:
        while not group.wait(LOOK_SECONDS):
            pass
    finally:
        ray.util.remove_placement_group(group)


def waiting(needed: dict[str, float]) -> str:
    """A line about resources (amount by name) that are waited for."""
    free, total = ray.available_resources(), ray.cluster_resources()
    wanted = ", ".join(f"{amount:g} {_named(name, amount)}" for name, amount in needed.items())
    has = ", ".join(
        f"{free.get(name, 0):g} free of {total.get(name, 0):g}"
        + (f" {_named(name, total.get(name, 0))}" if len(needed) > 1 else "")
        for name in needed
    )
    return f"waiting for {wanted}; the cluster has {has} (Ctrl-C ends the waiting)"


def _named(name: str, amount: float) -> str:
    return name if amount == 1 else f"{name}s"


def _accepts(door: tuple[str, int]) -> bool:
    try:
        socket.create_connection(door, timeout=LOST_SECONDS).close()
    except OSError:
        return False
    return True
