"""The server: a socket, and uvicorn on it."""

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
"""Maximum number of connections."""
HEAD_S = 10.0
"""Seconds in which a connection must send the head of a request."""
SEND_S = 120.0
"""Seconds in which a client must read a response after it is complete."""
DRAIN_S = 30
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
]
"""Headers of every response."""


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with a time limit for the head of a request.

    uvicorn itself waits for a head forever, and refuses all clients while too many connections are
    open. Here, a new connection replaces an old one: the longest waiting connection without a
    request, else the oldest one whose response is being sent, because its client may be slow.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        others = [other for other in self.connections if isinstance(other, Connection)]
        super().connection_made(transport)
        self._await_head()
        if len(others) >= CONNECTIONS:
            oldest = min(others, key=lambda other: (other.rank, other.since))
            (self if oldest.rank == WORKING else oldest).transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    @property
    def rank(self) -> int:
        """The state of the connection. Connections of a lower rank are replaced first."""
        if self.transport.get_write_buffer_size():
            return ANSWERING
        if self.cycle is None or self.cycle.response_complete:
            return WAITING
        return ANSWERING if self.cycle.response_started else WORKING

    def _await_head(self) -> None:
        self.since = self.loop.time()
        # close() sends the rest of the response first, abort() does not
        for seconds, end in ((HEAD_S, self.transport.close), (SEND_S, self.transport.abort)):
            self.loop.call_later(seconds, self._end_without_head, self.cycle, end)

    def _end_without_head(self, before: Any, end: Callable[[], None]) -> None:
        """End the connection if no request has arrived since the request `before`."""
        if self.cycle is before and (before is None or before.response_complete):
            end()


WAITING, ANSWERING, WORKING = range(3)


def open_socket(host: str, port: int) -> socket.socket:
    """Open a listening socket, so that a port in use is reported before anything else starts.

    Raises:
        InputError: If the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen()
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --host "
            "and --port"
        ) from None
    return opened


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Create the server of an application. It does not listen yet."""
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
    """Serve until SIGINT or SIGTERM, then complete the requests in progress."""
    host, port = opened.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port} (press Ctrl-C to stop)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[opened])
