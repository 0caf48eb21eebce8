"""The service under slow, silent, greedy and unauthorised clients."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartseg.serving import listen
from heartseg.serving.limits import Limits
from tests.serving.running import LIMITS, nifti, png, running
from tests.serving.test_app import AFFINE, HEAD, PART, chunked, heart

pytestmark = pytest.mark.slow

PICTURE = png(heart()[1])


@pytest.fixture(scope="module")
def service():
    with running() as client:
        yield client


@contextmanager
def sockets(port, count, content=b"", source="127.0.0.1"):
    """Open connections that have sent some content."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
            stack.enter_context(one).sendall(content)
            opened.append(one)
        yield opened


def status_of(connection):
    return int(connection.recv(4000).split()[1])


# --- connections ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"GET /model HTTP/1.1\r\nHost: "])
def test_idle_connections_do_not_block_others(service, content):
    with sockets(service.port, listen.CONNECTIONS + 44, content) as opened:
        assert service.get("/model").status_code == 200
        assert service.labels("x.png", PICTURE).status_code == 200
        opened[0].settimeout(5)
        assert opened[0].recv(10) == b""  # the oldest one was closed


def test_the_head_of_a_request_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(listen, "HEAD_S", 0.3)
    with running() as client, sockets(client.port, 2) as (silent, dripping):
        start = time.monotonic()
        with suppress(OSError):  # closed
            while time.monotonic() < start + 10:
                dripping.sendall(b"G")
                time.sleep(0.05)
        silent.settimeout(5)
        assert silent.recv(10) == b""
        assert time.monotonic() - start < 5
        client.network.hold = "1"  # a request in progress may take longer
        answers = []
        worked_on = threading.Thread(target=lambda: answers.append(client.labels("x", PICTURE)))
        worked_on.start()
        time.sleep(0.6)
        client.network.go.set()
        worked_on.join()
        assert answers[0].status_code == 200


def test_a_slow_reader_gets_its_answer_within_bounds(monkeypatch):
    """The service still holds a part of the response when the time for the next request is over."""
    monkeypatch.setattr(listen, "HEAD_S", 0.3)
    noise = np.random.default_rng(0).integers(1, 80, (16, 900, 900), np.uint8)
    request = requests.Request(
        "POST",
        "http://127.0.0.1/predict",
        files={"files": ("x.nii", nifti(noise, AFFINE))},
        data={"pictures": "true"},
    ).prepare()
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /predict HTTP/1.1", "Host: 127.0.0.1", *lines, "\r\n"])

    def ask(client):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(20)
            slow.connect(("127.0.0.1", client.port))
            slow.sendall(head.encode() + request.body)
            start = slow.recv(4000)
            time.sleep(1.5)
            with suppress(ConnectionResetError):
                while content := slow.recv(1 << 20):
                    start += content
        return start

    with running(Limits(32 << 20, 20.0)) as client:
        assert ask(client).endswith(b"}")
        monkeypatch.setattr(listen, "SEND_S", 0.6)
        assert not ask(client).endswith(b"}")


# --- uploads ----------------------------------------------------------------------------------


def test_slow_uploads_do_not_block_others():
    limits = Limits(1 << 20, 20.0, uploads=8, uploads_per_client=6, slow_s=0.4)
    body = HEAD + chunked(PART)
    with running(limits) as client, sockets(client.port, 6, body) as slow:
        time.sleep(0.1)
        refused = client.labels("x.png", PICTURE)  # the client has too many requests
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        proxied = {"X-Forwarded-For": "192.0.2.1"}
        assert client.labels("x.png", PICTURE, headers=proxied).status_code == 200
        with sockets(client.port, 2, body, source="127.0.0.2"):
            time.sleep(0.5)
            assert client.labels("x.png", PICTURE).status_code == 200
            assert status_of(slow[0]) == 408
            with sockets(client.port, 1, HEAD, source="127.0.0.3") as (third,):
                third.sendall(chunked(b"--x--\r\n") + chunked(b""))
                assert status_of(third) in (400, 422)  # it was accepted
            assert client.labels("x.png", PICTURE).status_code == 200


def test_a_client_that_still_sends_sees_the_answer(service, tmp_path):
    too_much = bytes(3 * LIMITS.upload_bytes)
    assert service.labels("x.nii", too_much).status_code == 413
    answer = requests.post(  # of unknown length
        f"{service.url}/labels",
        data=iter([PART, *[bytes(1 << 16)] * 40]),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        timeout=20,
    )
    assert answer.status_code == 413
    foreign = {"Origin": "http://evil.example"}
    assert service.labels("x.nii", too_much, headers=foreign).status_code == 403
    if shutil.which("curl"):
        (tmp_path / "x").write_bytes(too_much)
        command = ["curl", "-s", "-F", f"file=@{tmp_path}/x", f"{service.url}/labels"]
        for more in ([], ["-H", "Expect:"]):
            done = subprocess.run([*command, *more], capture_output=True, timeout=20, check=True)
            assert b"more than 1 MiB" in done.stdout


# --- memory and time --------------------------------------------------------------------------


def test_pixels_in_memory_are_bounded_over_all_requests():
    pixels = heart()[1].size
    with running(Limits(1 << 20, 20.0, pixels_in_memory=3 * pixels)) as client:
        client.network.hold = "1"
        files = {"a.png": PICTURE, "b.png": PICTURE}
        first = threading.Thread(target=lambda: client.predict(files))
        first.start()
        client.network.waiting.wait(10)
        assert client.service.budget.free == pixels
        refused = client.predict(files)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert client.predict({f"{k}.png": PICTURE for k in range(4)}).status_code == 413
        client.network.go.set()
        first.join()
        assert client.predict(files).status_code == 200
        assert client.predict({"a.png": PICTURE, "b.png": PICTURE[:150]}).status_code == 422
        assert client.service.budget.free == 3 * pixels


def test_requests_that_take_too_long_are_refused_at_once():
    frame = heart()[1][:40, :40]
    short, long = (nifti(np.stack([frame] * count), AFFINE) for count in (10, 100))
    with running(Limits(1 << 20, 20.0, answer_s=1.0)) as client:
        client.network.seconds = 0.03
        assert client.labels("x.nii", long).status_code == 503  # the speed is not known yet
        start = time.monotonic()
        refused = client.labels("x.nii", long)
        assert time.monotonic() - start < 0.9
        assert refused.status_code == 413
        assert "100 frames" in refused.json()["detail"]
        assert client.labels("x.nii", short).status_code == 200
        client.network.seconds = 0.0
        client.source.newest = client.source.version("2")  # it may be faster
        client.service.update()
        assert client.labels("x.nii", long).status_code == 200


# --- strangers --------------------------------------------------------------------------------


def test_cross_site_posts_are_refused(service):
    own = f"http://127.0.0.1:{service.port}"
    for headers, status in (
        ({}, 200),
        ({"Origin": own}, 200),
        ({"Origin": own, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://proxy.example", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": own, "Sec-Fetch-Site": "same-site"}, 403),
    ):
        answer = service.labels("x.png", PICTURE, headers=headers)
        assert answer.status_code == status, headers


def test_headers_of_all_answers(service):
    for answer in (
        service.get("/"),
        service.get("/model"),
        service.get("/absent"),
        service.get("/predict"),
        service.get("/model", headers={"Host": "evil.example"}),
        service.labels("x.png", PICTURE),
        service.labels("x.png", bytes(2 << 20)),
        service.labels("x.png", b""),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


# --- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("coded", [True, False])
def test_a_file_whose_affine_is_no_number_is_refused_or_has_no_scale(service, value, coded):
    """422 if the affine defines the orientation. A missing spacing alone is accepted."""
    for place in (0, 1):
        content = bytearray(nifti(heart()[1], AFFINE))
        np.frombuffer(content, "<f4", 2, 80)[place] = value  # pixdim
        if coded:
            np.frombuffer(content, "<f4", 12, 280).reshape(3, 4)[place, place] = value  # srow
        else:
            content[252:256] = bytes(4)  # qform_code, sform_code
        answer = service.predict({"x.nii": bytes(content)})
        labels = service.labels("x.nii", bytes(content))
        if coded:
            assert (answer.status_code, labels.status_code) == (422, 422)
            assert "affine" in answer.json()["detail"]
        else:
            (image,) = answer.json()["images"]
            assert image["spacing"] is None
            assert image["no_scale"]
            assert labels.status_code == 200


ODD = st.one_of(
    st.sampled_from(
        ["nan", "inf", "-inf", "-1", "0", "1e999", "1e-999", "", " ", "0,5", "٣", "1_0"]
    ),
    st.floats().map(str),
    st.text(max_size=20),
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "views",
                "phases",
                "mm_per_row",
                "mm_per_column",
                "s_per_column",
                "species",
                "pictures",
                "else",
            ]
        ),
        st.lists(ODD, max_size=3),
    ),
    st.sampled_from(["mm_per_row", "views", "pictures", "species", "else"]),
    st.booleans(),
    st.text(max_size=12),
)
def test_no_field_breaks_the_service(service, fields, file_field, as_file, name):
    files = [("files", (name or "x", PICTURE))]
    if as_file:  # a file where a field belongs
        files.append((file_field, ("nan", b"nan")))
    answer = requests.post(f"{service.url}/predict", files=files, data=fields, timeout=20)
    assert answer.status_code in (200, 400, 422), answer.text
    assert answer.headers["Content-Type"] == "application/json"
    answer.json(parse_constant=lambda constant: pytest.fail(constant))
