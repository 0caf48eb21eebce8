"""Random mutations of the bytes of a file."""

from __future__ import annotations

import struct
from random import Random

INTEGERS = (0, 1, 2, 5, 127, 128, 255, 256, 4096, 4097, 32767, 32768, 65535, 2**31 - 1, 2**32 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e38, 0.5, float("nan"), float("inf"), float("-inf"))
MAX_BYTES = 1 << 20  # bytes of a mutated file


def mutate(data: bytes, rng: Random, reach: int | None = None) -> bytes:
    """Apply one to four changes within the first `reach` bytes, or anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(CHANGES)(data, rng, min(reach or len(data), len(data)))
    return data[:MAX_BYTES]


def _flip(data: bytes, rng: Random, reach: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        if reach:
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(data: bytes, rng: Random, reach: int) -> bytes:
    """Set some bytes to an extreme."""
    start = rng.randrange(reach + 1)
    length = rng.choice((1, 1, 2, 4, 16))
    return (
        data[:start]
        + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * length
        + data[start + length :]
    )


def _number(data: bytes, rng: Random, reach: int) -> bytes:
    """Write an extreme number of two, four or eight bytes."""
    if rng.random() < 0.3:
        new = struct.pack(rng.choice(("<f", ">f", "<d", ">d")), rng.choice(FLOATS))
    else:
        value = rng.choice((1, -1)) * rng.choice(INTEGERS)
        size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
        new = (value % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
    start = rng.randrange(reach + 1)
    return data[:start] + new + data[start + len(new) :]


def _cut(data: bytes, rng: Random, reach: int) -> bytes:
    return data[: rng.randrange(reach + 1)]


def _insert(data: bytes, rng: Random, reach: int) -> bytes:
    start = rng.randrange(reach + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 7, 64, 1000))) + data[start:]


def _delete(data: bytes, rng: Random, reach: int) -> bytes:
    start = rng.randrange(reach + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 9, 100)) :]


def _repeat(data: bytes, rng: Random, reach: int) -> bytes:
    start = rng.randrange(reach + 1)
    part = data[start : start + rng.choice((4, 20, 200))]
    return data[:start] + part * rng.choice((2, 3, 50)) + data[start:]


def _swap(data: bytes, rng: Random, reach: int) -> bytes:
    one, other = sorted(rng.randrange(reach + 1) for _ in range(2))
    length = rng.choice((2, 8, 40))
    a, b = data[one : one + length], data[other : other + length]
    if one + length > other:
        return data
    return data[:one] + b + data[one + length : other] + a + data[other + length :]


CHANGES = (_flip, _flip, _set, _number, _number, _cut, _insert, _delete, _repeat, _swap)
