"""What the service refuses before it works on a request: strangers, too much, too slow, too many.

All of it is answered in JSON, {"detail": reason}, with a status code of 4xx (503: try again).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heartseg.errors import InputError

TOKEN_VARIABLE = "HEARTSEG_SERVE_TOKEN"
SHORTEST_TOKEN = 16
OPEN = ("/", "/healthz", "/openapi.json")
"""Free for all: they tell nothing of data or models but the version."""


@dataclass(frozen=True)
class Limits:
    """Of one request, but for `uploads`."""

    upload_bytes: int
    upload_s: float
    """The body must have come after so many seconds."""
    answer_s: float = 120.0
    """And be segmented after so many more."""
    uploads: int = 48
    """Requests that the service works on at a time."""
    files: int = 4
    frames: int = 128
    """Of one file."""
    frame_pixels: int = 2**24
    pixels: int = 2**25
    """Of all frames of a file."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(host: str, file: Path | None) -> str | None:
    """The token that requests must carry: of the file, else of HEARTSEG_SERVE_TOKEN, else none.

    Raises:
        InputError: the token cannot be read or is short, or there is none and other machines can
            reach the address.
    """
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the token cannot be read ({error}); mend it") from None
        place = str(file)
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        place = TOKEN_VARIABLE
        if not token and is_loopback(host):
            return None
    if not token and file is None:
        raise InputError(
            f"other machines can reach {host}, so a token is needed: put one into a file that only "
            f"you can read and name it by --token-file, or set {TOKEN_VARIABLE}. To make one: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        raise InputError(
            f"{place}: the token must have {SHORTEST_TOKEN} or more characters, all of ASCII"
        )
    return token


class Gate:
    """ASGI middleware that lets in what `Limits` and the token allow.

    Args:
        app: what is behind it.
        limits: of the requests.
        token: that they must carry as `Authorization: Bearer TOKEN`; None for no token.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None):
        self.app = app
        self.limits = limits
        self.token = token
        self.uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return
        if request.method != "POST":
            await self.app(scope, receive, send)
            return
        self.uploads += 1
        try:
            await self.app(scope, self._metered(receive), send)
        finally:
            self.uploads -= 1

    def _refuse(self, request: Request) -> JSONResponse | None:
        if self.token is not None and request.url.path not in OPEN:
            given = request.headers.get("authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return _answer(401, "a token is needed: Authorization: Bearer TOKEN")
        if request.method != "POST":
            return None
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.upload_bytes:
            return _answer(413, self._too_much)
        if self.uploads >= self.limits.uploads:
            return _answer(503, f"{self.uploads} requests are being worked on; try again")
        return None

    @property
    def _too_much(self) -> str:
        return f"more than {self.limits.upload_bytes / 2**20:g} MiB"

    def _metered(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """`receive` that stops at the limits, without reading on."""
        deadline = monotonic() + self.limits.upload_s
        count, whole = 0, False

        async def metered() -> Message:
            nonlocal count, whole
            if whole:  # from here on only "the client has gone" can come
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - monotonic())
            except TimeoutError:
                reason = f"the upload took more than {self.limits.upload_s:g} s"
                raise HTTPException(408, reason, {"Connection": "close"}) from None
            count += len(message.get("body", b""))
            if count > self.limits.upload_bytes:
                raise HTTPException(413, self._too_much, {"Connection": "close"})
            whole = not message.get("more_body", False)
            return message

        return metered


def _answer(status: int, reason: str) -> JSONResponse:
    headers = {"Connection": "close"}  # the rest of the body is not read
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse({"detail": reason}, status, headers)
