"""The metrics of the service, in the text format of Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """The metrics of one service."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "heartseg_requests", "Requests answered", ["path", "status"], registry=own
        )
        self.seconds = Histogram(
            "heartseg_request_seconds",
            "Time from the head of a request to the end of its response",
            ["path"],
            buckets=SECONDS,
            registry=own,
        )
        self.working = Gauge("heartseg_requests_in_work", "Requests being processed", registry=own)
        self.batch = Histogram(
            "heartseg_batch_size",
            "For each image, the size of the batch in which it was segmented",
            buckets=IMAGES,
            registry=own,
        )
        self.model = Gauge(
            "heartseg_model_info", "The served model", ["model", "version"], registry=own
        )
        self.failed_updates = Counter(
            "heartseg_failed_updates", "Failed checks for a new version", registry=own
        )

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)


class RequestCounter:
    """ASGI middleware that counts and times all requests, including refused ones.

    Args:
        app: Application to wrap.
        counters: Metrics to update.
        paths: Paths that are counted by name. All others are counted as "other".
    """

    def __init__(self, app: ASGIApp, counters: Counters, paths: set[str]):
        self.app = app
        self.counters = counters
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        status, start = 500, perf_counter()

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self.counters.working.track_inprogress():
                await self.app(scope, receive, send_noting_status)
        finally:
            self.counters.seconds.labels(path).observe(perf_counter() - start)
            self.counters.requests.labels(path, str(status)).inc()
