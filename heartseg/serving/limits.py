"""Limits of the service: the token, and the size, duration and number of requests.

A refused request gets the JSON {"detail": reason} with a status code of 4xx, or 503 if it may be
repeated later.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heartseg.errors import InputError

TOKEN_VARIABLE = "HEARTSEG_SERVE_TOKEN"
SHORTEST_TOKEN = 16
PUBLIC_PATHS = ("/", "/healthz", "/openapi.json")
"""Paths that need no token. They reveal nothing about data and models except the version."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
DRAIN_S = 10.0
DRAIN_TIMES = 4
"""Limits for reading the rest of a refused body: seconds, and multiples of the allowed bytes. A
client that is still sending when the connection is closed would never see the response."""


@dataclass(frozen=True)
class Limits:
    """Limits of a single request and of all concurrent requests.

    Attributes:
        upload_bytes: Bytes of the body of a request.
        upload_s: Seconds in which the body must arrive.
        answer_s: Seconds in which the files must then be segmented.
        uploads: Number of concurrent requests.
        uploads_per_client: Number of concurrent requests from one address.
        slow_s: Seconds after which an incomplete body may lose its place to a new request.
        files: Number of files of a request.
        frames: Number of frames of a file.
        frame_pixels: Pixels of a frame.
        pixels: Pixels of all frames of a file.
        pixels_in_memory: Pixels of all files of all concurrent requests.
    """

    upload_bytes: int
    upload_s: float
    answer_s: float = 120.0
    uploads: int = 48
    uploads_per_client: int = 32
    slow_s: float = 2.0
    files: int = 4
    frames: int = 128
    frame_pixels: int = 2**24
    pixels: int = 2**25
    pixels_in_memory: int = 2**26


class PixelBudget:
    """The number of decoded pixels that all requests together may hold in memory.

    Args:
        pixels: Number of pixels.
    """

    def __init__(self, pixels: int):
        self.pixels = pixels
        self.free = pixels
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Open the share of one request, which is freed at the end of the block.

        Yields:
            A function that reserves a number of pixels. It raises an HTTPException: 503 if they
            are not free now, or 413 if the request needs more than the whole budget.
        """
        reserved = 0

        def reserve(pixels: int) -> None:
            nonlocal reserved
            if reserved + pixels > self.pixels:
                raise HTTPException(
                    413, f"the files have more than {self.pixels} pixels in total; send fewer files"
                )
            with self._lock:
                if pixels > self.free:
                    raise HTTPException(
                        503, "other requests use all the memory; try again", {"Retry-After": "5"}
                    )
                self.free -= pixels
                reserved += pixels

        try:
            yield reserve
        finally:
            with self._lock:
                self.free += reserved


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(host: str, file: Path | None) -> str | None:
    """Return the token that requests must contain.

    Args:
        host: Address on which the server listens.
        file: File that contains the token. By default, HEARTSEG_SERVE_TOKEN contains it.

    Returns:
        The token, or None if there is none and only this machine can reach the address.

    Raises:
        InputError: If the token cannot be read or is too short, or if there is none and other
            machines can reach the address.
    """
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the token cannot be read ({error}); fix the file") from None
        place = str(file)
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        place = TOKEN_VARIABLE
        if not token and is_loopback(host):
            return None
    if not token and file is None:
        raise InputError(
            f"other machines can reach {host}, so a token is needed: put one into a file that only "
            f"you can read and pass it as --token-file, or set {TOKEN_VARIABLE}. To create one: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        raise InputError(
            f"{place}: the token must have at least {SHORTEST_TOKEN} characters, all of ASCII"
        )
    return token


class Upload:
    """The body of a request, read within the limits.

    Args:
        receive: ASGI function that receives the messages of the request.
        client: Address of the client.
        limits: Limits of the service.

    Attributes:
        start: Start of the request in seconds of the event loop.
        complete: Whether the whole body has arrived.
    """

    def __init__(self, receive: Receive, client: str, limits: Limits):
        self._receive = receive
        self.client = client
        self._limits = limits
        self.start = asyncio.get_running_loop().time()
        self._deadline = self.start + limits.upload_s
        self._timeout_reason = f"the upload took more than {limits.upload_s:g} s"
        self._timeout: asyncio.Timeout | None = None
        self._bytes = 0
        self.complete = False

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: 408 if it does not arrive in time, 413 if the body is too large.
        """
        if self.complete:  # only "http.disconnect" can follow
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, self._timeout_reason, {"Connection": "close"}) from None
        finally:
            self._timeout = None
        self._note(message)
        if self._bytes > self._limits.upload_bytes:
            raise HTTPException(413, too_much(self._limits), {"Connection": "close"})
        return message

    def _note(self, message: Message) -> None:
        self._bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)

    def abort(self) -> None:
        """Stop waiting for the rest of the body."""
        self._deadline = 0.0
        self._timeout_reason = "the upload was slow while other requests waited; try again"
        if self._timeout is not None:
            self._timeout.reschedule(self._deadline)

    async def drain(self) -> None:
        """Read and discard the rest of the body, up to `DRAIN_S` and `DRAIN_TIMES`."""
        self._bytes = 0
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self.complete and self._bytes < DRAIN_TIMES * self._limits.upload_bytes:
                    self._note(await self._receive())
        except TimeoutError:
            pass


class RequestFilter:
    """ASGI middleware that refuses requests without the token or beyond the limits.

    Args:
        app: Application to wrap.
        limits: Limits of the requests.
        token: Token that requests must contain as `Authorization: Bearer TOKEN`, or None.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None):
        self.app = app
        self.limits = limits
        self.token = token
        self.uploads: set[Upload] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if request.method in SAFE_METHODS:
            await (self._refuse(request) or self.app)(scope, receive, send)
            return
        upload = Upload(receive, request.client.host if request.client else "", self.limits)

        async def send_after_body(message: Message) -> None:
            """Send a message, but complete the response only after the body has arrived."""
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and not upload.complete:
                await send({**message, "more_body": True})
                self.uploads.discard(upload)
                await upload.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        refused = self._refuse(request) or self._refuse_upload(request, upload)
        if refused is not None:
            await refused(scope, receive, send_after_body)
            return
        self.uploads.add(upload)
        try:
            await self.app(scope, upload.receive, send_after_body)
        finally:
            self.uploads.discard(upload)

    def _refuse(self, request: Request) -> JSONResponse | None:
        if self.token is not None and request.url.path not in PUBLIC_PATHS:
            given = request.headers.get("authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return _answer(401, "send the token as Authorization: Bearer TOKEN")
        return None

    def _refuse_upload(self, request: Request, upload: Upload) -> JSONResponse | None:
        if _is_cross_site(request):
            return _answer(403, "the request comes from a page of another site")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.upload_bytes:
            return _answer(413, too_much(self.limits))
        if not self._has_place(upload.client):
            return _answer(503, "too many concurrent requests; try again")
        return None

    def _has_place(self, client: str) -> bool:
        """Return whether a client may send one more request. This may abort a slow upload."""
        counts = Counter(upload.client for upload in self.uploads)
        if (
            counts[client] < self.limits.uploads_per_client
            and len(self.uploads) < self.limits.uploads
        ):
            return True
        full = counts[client] >= self.limits.uploads_per_client
        latest = asyncio.get_running_loop().time() - self.limits.slow_s
        slow = [
            upload
            for upload in self.uploads
            if not upload.complete
            and upload.start < latest
            and (upload.client == client or not full)
        ]
        if not slow:
            return False
        slowest = max(slow, key=lambda upload: (counts[upload.client], -upload.start))
        slowest.abort()
        self.uploads.discard(slowest)
        return True


def too_much(limits: Limits) -> str:
    """Return the reason why a body is refused."""
    return f"more than {limits.upload_bytes / 2**20:g} MiB"


def _is_cross_site(request: Request) -> bool:
    """Return whether a browser sent the request from a page of another site.

    Browsers send the header Sec-Fetch-Site, except over plain HTTP to another machine, where they
    send only Origin. Other clients send neither.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        return False
    return origin.partition("://")[2] != request.headers.get("host", "")


def _answer(status: int, reason: str) -> JSONResponse:
    headers = {"Connection": "close"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse({"detail": reason}, status, headers)
