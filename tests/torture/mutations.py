"""How a file is damaged, or made hostile: functions (content, rng) -> content, with names that say what they do."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]
CANARY = "executed"  # a folder that a hostile file would make in the reader's working folder
PICKLE = b"cposix\nmkdir\n(S'" + CANARY.encode() + b"'\ntR."  # that folder, made by whoever unpickles this
VALUES: list[Any] = [
    None, True, -1, 0, 1, 10**12, 10**400, -(10**12), 0.5, 1e308, float("nan"), float("inf"), "", "x", "é\n", "../x",
    [], [-1],
    [10**6, 10**6], {}, {"x": 1}, [[]], "nan", 2**63,
]  # fmt: skip


def _span(content: bytes, rng: Rng, longest: int = 4_096) -> tuple[int, int]:
    """A random span; half of the time within the first kilobyte, where headers are."""
    first = int(rng.integers(0, min(len(content), 1_024 if rng.random() < 0.5 else len(content)) + 1))
    return first, min(len(content), first + 1 + int(longest ** rng.random()))


def flips(content: bytes, rng: Rng) -> bytes:
    """One to eight bits flipped."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9)) if content else 0):
        changed[_span(content, rng)[0] - 1] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(content: bytes, rng: Rng) -> bytes:
    """Its beginning alone."""
    return content[: int(rng.integers(0, len(content) + 1))]


def beheaded(content: bytes, rng: Rng) -> bytes:
    """Its end alone."""
    return content[int(rng.integers(0, len(content) + 1)) :]


def inserted(content: bytes, rng: Rng) -> bytes:
    """Random bytes put in."""
    first, last = _span(content, rng)
    return content[:first] + rng.bytes(last - first) + content[first:]


def doubled(content: bytes, rng: Rng) -> bytes:
    """A chunk twice."""
    first, last = _span(content, rng)
    return content[:last] + content[first:]


def zeroed(content: bytes, rng: Rng) -> bytes:
    """A span of zeros."""
    first, last = _span(content, rng)
    return content[:first] + bytes(last - first) + content[last:]


def random_span(content: bytes, rng: Rng) -> bytes:
    """A span of random bytes."""
    first, last = _span(content, rng)
    return content[:first] + rng.bytes(last - first) + content[last:]


def swapped(content: bytes, rng: Rng) -> bytes:
    """Two spans that have changed places."""
    a, b = sorted(int(rng.integers(0, len(content) + 1)) for _ in range(2))
    return content[b:] + content[a:b] + content[:a]


def number(content: bytes, rng: Rng) -> bytes:
    """A digit, or a few, replaced by another number."""
    digits = [i for i, c in enumerate(content) if 48 <= c <= 57]
    if not digits:
        return flips(content, rng)
    at = digits[int(rng.integers(len(digits)))]
    new = [b"-1", b"1e999", b"nan", b"9" * 20, b"", b"0x", b"1e-320", b"\xff", b"-", b"2999-01-01"][
        int(rng.integers(10))
    ]
    return content[:at] + new + content[at + 1 :]


PLAIN: list[Mutation] = [flips, truncated, beheaded, inserted, doubled, zeroed, random_span, swapped, number]


def within(content: bytes, rng: Rng) -> bytes:
    """A compressed file whose payload is damaged and packed again, so that checksums hold."""
    plain = PLAIN[int(rng.integers(len(PLAIN)))]
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(plain(gzip.decompress(content), rng), 1)
    if content[:2] != b"PK":
        return plain(content, rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = int(rng.integers(len(old.namelist())))
        for i, name in enumerate(old.namelist()):
            new.writestr(name, plain(old.read(name), rng) if i == chosen else old.read(name))
    return packed.getvalue()


def value(content: bytes, rng: Rng) -> bytes:
    """JSON with one value, somewhere in it, that is another or gone."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return number(content, rng)
    return json.dumps(changed(whole, rng)).encode()


def changed(whole: Any, rng: Rng) -> Any:
    """A JSON value of which a part, somewhere, is another or gone."""
    if isinstance(whole, dict | list) and whole and rng.random() < 0.9:
        keys = list(whole) if isinstance(whole, dict) else list(range(len(whole)))
        key = keys[int(rng.integers(len(keys)))]
        new = whole.copy()
        if rng.random() < 0.1:
            new.pop(key)
        else:
            new[key] = changed(whole[key], rng)
        return new
    return VALUES[int(rng.integers(len(VALUES)))]


# ---- hostile files, whatever the reader ----------------------------------------------------------------------------


def _npy(dtype: str, shape: str, payload: bytes) -> bytes:
    """An npy file with that header."""
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + payload


def _zip(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


def _tar(names: dict[str, tuple[bytes, bytes]]) -> bytes:
    """A .tar.gz of members by name: type and content (of links, where they lead to)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, (kind, content) in names.items():
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "" if kind == tarfile.REGTYPE else content.decode()
            file.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def hostile() -> dict[str, bytes]:
    """Contents that want to run, to be unpacked elsewhere, to fill the memory, or to recurse; by name."""
    deep, zeros = b"[" * 200_000, bytes(20_000_000)
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    bomb = _tar({"x/train/a.json": (tarfile.REGTYPE, zeros * 4)})
    away = {f"x/train/{i}.json": (kind, b"/etc/passwd") for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE))}
    return {
        "empty": b"", "pickle": PICKLE, "deep": deep, "deep-object": b'{"a":' * 100_000,
        "binary": bytes(range(256)) * 40,
        "zeros": bytes(100_000), "text": "ä,ö\n1,2\n".encode("latin-1") * 50, "gzip-bomb": gzip.compress(zeros * 20, 1),
        "objects.npy": _npy("|O", "(3,)", PICKLE), "objects.npz": _zip({"images.npy": _npy("|O", "(3,)", PICKLE)}),
        "huge.npz": _zip({"images.npy": _npy("|u1", f"({10**12}, 8, 8)", b"")}),
        "large.npz": _zip({"images.npy": _npy("|u1", "(2500000, 8, 8)", zeros * 8)}),
        "negative.npz": _zip({"images.npy": _npy("|u1", "(-1, 8, 8)", b"")}),
        "outside.zip": _zip({f"../{CANARY}/x": b"x", "images.npy": _npy("|u1", "(3, 8, 8)", bytes(192))}),
        "outside.tar.gz": _tar({f"../{CANARY}": (tarfile.REGTYPE, b"x"), **away}), "bomb.tar.gz": bomb,
        "fifo.tar.gz": _tar({"x/train/a.json": (tarfile.FIFOTYPE, b"")}),
        "header": len(header).to_bytes(8, "little") + header, "long-header": (2**60).to_bytes(8, "little") + b"{}",
        "yaml": b"!!python/object/apply:os.mkdir [" + CANARY.encode() + b"]\n",
        "lol": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n".encode() for p, c in zip("abcdefg", "bcdefgh")),
        "picture": b"P6 100000 100000 255\n" + bytes(1_000), "png": b"\x89PNG\r\n\x1a\n" + bytes(60),
    }  # fmt: skip
