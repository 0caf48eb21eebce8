"""What the service refuses before it works on a request: strangers, too much, too slow, too many.

All of it is answered in JSON, {"detail": reason}, with a status code of 4xx (503: try again).
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
OPEN = ("/", "/healthz", "/openapi.json")
"""Free for all: they tell nothing of data or models but the version."""


SAFE = ("GET", "HEAD", "OPTIONS")
DRAIN_S = 10.0
DRAIN_TIMES = 4
"""The rest of a refused body is read for so many seconds, and up to so many times the bytes that
are allowed: a client that is still sending when the connection is closed never sees the answer."""


@dataclass(frozen=True)
class Limits:
    """Limits of a request and of all requests together.

    Attributes:
        upload_bytes: of a request's body.
        upload_s: seconds after which the body must have come.
        answer_s: seconds after which it must then be segmented.
        uploads: requests that are received and worked on at a time.
        of_a_client: how many of them may come from one address.
        slow_s: seconds after which a body that is still coming can lose its place to a new request.
        files: of a request.
        frames: of a file.
        frame_pixels: of a frame.
        pixels: of all frames of a file.
        pixels_in_memory: of all files of all requests at a time.
    """

    upload_bytes: int
    upload_s: float
    answer_s: float = 120.0
    uploads: int = 48
    of_a_client: int = 32
    slow_s: float = 2.0
    files: int = 4
    frames: int = 128
    frame_pixels: int = 2**24
    pixels: int = 2**25
    pixels_in_memory: int = 2**26


class PixelBudget:
    """The decoded pixels that all requests together may hold in memory.

    Args:
        pixels: so many.
    """

    def __init__(self, pixels: int):
        self.pixels = pixels
        self.free = pixels
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """The share of one request, which is free again after the block.

        Yields:
            A function that takes so many pixels. It raises an HTTPException, 503 if they are not
            free now and 413 if the request needs more than there are at all.
        """
        taken = 0

        def take(pixels: int) -> None:
            nonlocal taken
            if taken + pixels > self.pixels:
                raise HTTPException(
                    413, f"the files have more than {self.pixels} pixels together; send fewer"
                )
            with self._lock:
                if pixels > self.free:
                    raise HTTPException(
                        503, "other requests hold all the memory; try again", {"Retry-After": "5"}
                    )
                self.free -= pixels
                taken += pixels

        try:
            yield take
        finally:
            with self._lock:
                self.free += taken


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


class Upload:
    """The body of a request, of which no more is read than `Limits` allow.

    Args:
        receive: of the request.
        client: address that it comes from.
        limits: of the service.

    Attributes:
        start: when it began, in seconds of the event loop.
        whole: whether all of it has come.
    """

    def __init__(self, receive: Receive, client: str, limits: Limits):
        self._receive = receive
        self.client = client
        self._limits = limits
        self.start = asyncio.get_running_loop().time()
        self._deadline = self.start + limits.upload_s
        self._late = f"the upload took more than {limits.upload_s:g} s"
        self._waiting: asyncio.Timeout | None = None
        self._count = 0
        self.whole = False

    async def receive(self) -> Message:
        """The next message.

        Raises:
            HTTPException: 408 it does not come in time; 413 too much has come.
        """
        if self.whole:  # from here on only "the client has gone" can come
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline) as self._waiting:
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, self._late, {"Connection": "close"}) from None
        finally:
            self._waiting = None
        self._note(message)
        if self._count > self._limits.upload_bytes:
            raise HTTPException(413, too_much(self._limits), {"Connection": "close"})
        return message

    def _note(self, message: Message) -> None:
        self._count += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)

    def cut(self) -> None:
        """Wait for no more of it."""
        self._deadline = 0.0
        self._late = "the upload was slow while others waited; try again"
        if self._waiting is not None:
            self._waiting.reschedule(self._deadline)

    async def drain(self) -> None:
        """Read the rest and forget it, within bounds."""
        self._count = 0
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self.whole and self._count < DRAIN_TIMES * self._limits.upload_bytes:
                    self._note(await self._receive())
        except TimeoutError:
            pass


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
        self.uploads: set[Upload] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if request.method in SAFE:
            await (self._refuse(request) or self.app)(scope, receive, send)
            return
        upload = Upload(receive, request.client.host if request.client else "", self.limits)

        async def send_whole(message: Message) -> None:
            """Like `send`; if the answer is there before the body, end it after the body."""
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and not upload.whole:
                await send({**message, "more_body": True})
                self.uploads.discard(upload)
                await upload.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        refused = self._refuse(request) or self._refuse_upload(request, upload)
        if refused is not None:
            await refused(scope, receive, send_whole)
            return
        self.uploads.add(upload)
        try:
            await self.app(scope, upload.receive, send_whole)
        finally:
            self.uploads.discard(upload)

    def _refuse(self, request: Request) -> JSONResponse | None:
        if self.token is not None and request.url.path not in OPEN:
            given = request.headers.get("authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return _answer(401, "a token is needed: Authorization: Bearer TOKEN")
        return None

    def _refuse_upload(self, request: Request, upload: Upload) -> JSONResponse | None:
        if _is_of_another_page(request):
            return _answer(403, "the request comes from a page of another site")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.upload_bytes:
            return _answer(413, too_much(self.limits))
        if not self._has_place(upload.client):
            return _answer(503, "too many requests are being worked on; try again")
        return None

    def _has_place(self, client: str) -> bool:
        """Whether one more request of a client fits in; a slow upload may have to make room."""
        counts = Counter(upload.client for upload in self.uploads)
        if counts[client] < self.limits.of_a_client and len(self.uploads) < self.limits.uploads:
            return True
        full = counts[client] >= self.limits.of_a_client
        latest = asyncio.get_running_loop().time() - self.limits.slow_s
        slow = [
            upload
            for upload in self.uploads
            if not upload.whole and upload.start < latest and (upload.client == client or not full)
        ]
        if not slow:
            return False
        slowest = max(slow, key=lambda upload: (counts[upload.client], -upload.start))
        slowest.cut()
        self.uploads.discard(slowest)
        return True


def too_much(limits: Limits) -> str:
    """The reason why a body is refused."""
    return f"more than {limits.upload_bytes / 2**20:g} MiB"


def _is_of_another_page(request: Request) -> bool:
    """Whether a browser sent the request for a page that is not the service's own.

    Browsers tell by Sec-Fetch-Site, but over plain HTTP to another machine by Origin alone. What
    is no browser sends neither.
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
