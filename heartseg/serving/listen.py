"""The server itself: a socket, and uvicorn on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from heartseg.errors import InputError

CONNECTIONS = 256
"""Connections at a time."""
HEAD_S = 10.0
"""Seconds within which a connection must have sent the head of a request."""
SEND_S = 120.0
"""Seconds within which a client must have read an answer, once it is complete."""
DRAIN_S = 30
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
]
"""Of every answer."""


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with a time limit for the head of a request.

    uvicorn itself waits for a head without end, and refuses everybody once too many connections
    are open. Here a new connection takes the place of an old one: of the one without a request
    that has waited longest, else of the oldest one that is being answered (its client may read
    slowly, or not at all).
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        open_ones = [one for one in self.connections if isinstance(one, Connection)]
        super().connection_made(transport)
        self._await_head()
        if len(open_ones) >= CONNECTIONS:
            oldest = min(open_ones, key=lambda one: (one.rank, one.since))
            (self if oldest.rank == WORKING else oldest).transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    @property
    def rank(self) -> int:
        """Which connections give up their place first."""
        if self.transport.get_write_buffer_size():
            return ANSWERING
        if self.cycle is None or self.cycle.response_complete:
            return WAITING
        return ANSWERING if self.cycle.response_started else WORKING

    def _await_head(self) -> None:
        self.since = self.loop.time()
        # close() still sends what the client has not read yet, abort() does not
        for seconds, end in ((HEAD_S, self.transport.close), (SEND_S, self.transport.abort)):
            self.loop.call_later(seconds, self._end_without_head, self.cycle, end)

    def _end_without_head(self, before: Any, end: Callable[[], None]) -> None:
        """End the connection if no request has come after the one `before`."""
        if self.cycle is before and (before is None or before.response_complete):
            end()


WAITING, ANSWERING, WORKING = range(3)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a taken port is told before anything starts.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen()
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another by --host "
            "and --port"
        ) from None
    return opened


def make_server(app: ASGIApp) -> uvicorn.Server:
    """The server of an application, which does not listen yet."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return uvicorn.Server(config)


def listen(app: ASGIApp, opened: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; requests being answered then are answered to their end."""
    host, port = opened.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[opened])
