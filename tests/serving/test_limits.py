from __future__ import annotations

import pytest

from heartseg.errors import InputError
from heartseg.serving.limits import TOKEN_VARIABLE, is_loopback, read_token

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.2", False),
        ("localhost.example", False),
    ],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_loopback_needs_no_token():
    assert read_token("127.0.0.1", None) is None


def test_another_address_is_refused_without_a_token():
    with pytest.raises(InputError, match=r"--token-file.*HEARTSEG_SERVE_TOKEN"):
        read_token("0.0.0.0", None)


def test_the_token_of_file_or_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token("0.0.0.0", None) == TOKEN
    assert read_token("127.0.0.1", None) == TOKEN  # a token that is set is required
    (tmp_path / "token").write_text("fedcba9876543210\n")
    assert read_token("0.0.0.0", tmp_path / "token") == "fedcba9876543210"


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 20, "é".encode() * 20])
def test_a_weak_or_unreadable_token_is_refused_and_not_shown(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_token("127.0.0.1", tmp_path / "token")
    assert "short" not in str(caught.value)
    with pytest.raises(InputError, match="absent"):
        read_token("127.0.0.1", tmp_path / "absent")
