"""What /metrics tells, in the text format of Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """Of one service."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "heartseg_requests", "Requests answered", ["path", "status"], registry=own
        )
        self.seconds = Histogram(
            "heartseg_request_seconds",
            "From the request's head to its answer's end",
            ["path"],
            buckets=SECONDS,
            registry=own,
        )
        self.working = Gauge("heartseg_requests_in_work", "Requests being answered", registry=own)
        self.batch = Histogram(
            "heartseg_batch_size",
            "For each image, how many went through the network with it",
            buckets=IMAGES,
            registry=own,
        )
        self.model = Gauge(
            "heartseg_model_info", "The model that answers", ["model", "version"], registry=own
        )
        self.failed_updates = Counter(
            "heartseg_failed_updates", "Looks for a new version that failed", registry=own
        )

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that counts and times requests, also those that are refused."""

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

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self.counters.working.track_inprogress():
                await self.app(scope, receive, noting)
        finally:
            self.counters.seconds.labels(path).observe(perf_counter() - start)
            self.counters.requests.labels(path, str(status)).inc()
