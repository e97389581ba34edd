"""vsmd.files: whole or not at all, readable as the user's mask says, the same bytes each time, errors of one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vsmd import files

FORMAT = "a-test"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_what_the_mask_leaves(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        files.write(tmp_path / "a.safetensors", FORMAT, {"x": torch.ones(2)}, {})
        files.write_atomic(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Twelve times, as one in six orders of the metadata would be right by chance; and they are read back."""
    tensors, info = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}, {"name": "é", "n": 3}
    for i in range(12):
        files.write(tmp_path / f"{i}", FORMAT, tensors, info)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    back, told = files.read(tmp_path / "0", FORMAT)
    assert told == info
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the library that writes tensors, whose errors are its own, and of our own writing."""
    from safetensors import SafetensorError

    path = tmp_path / "model.safetensors"
    files.write(path, FORMAT, {"x": torch.ones(2)}, {})
    before = path.read_bytes()

    def full(tensors: Any, target: Path, metadata: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(OSError, match=r"^path='.*model.safetensors': could not be written \(.*No space left"):
            files.write(path, FORMAT, {"x": torch.zeros(2)}, {})

    def none_left(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", none_left)
    with pytest.raises(
        OSError, match=r"^path='.*model.safetensors': could not be written \(No space left on device\)$"
    ):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    files.check_writable(tmp_path / "deep" / "x.csv")
    assert list((tmp_path / "deep").iterdir()) == []
    for path in (tmp_path / "file" / "x.csv", tmp_path / "deep"):
        with pytest.raises(OSError, match=rf"^path='{path}': could not be written \("):
            files.check_writable(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """In a process of its own, which would wait for ever."""
    os.mkfifo(tmp_path / "model.safetensors")
    code = f"from vsmd import files\nfiles.read({str(tmp_path / 'model.safetensors')!r}, 'a-test')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "is no file); must be a safetensors file" in done.stderr


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock goes when it is left, by an error too, and leaves nothing behind."""
    with files.alone(tmp_path / "run", "taken"):
        with pytest.raises(ValueError, match=r"^taken$"), files.alone(tmp_path / "run", "taken"):
            pass
        with files.alone(tmp_path / "other", "taken"):
            pass
    with pytest.raises(ZeroDivisionError), files.alone(tmp_path / "run", "taken"):
        _ = 1 / 0
    with files.alone(tmp_path / "run", "taken"):
        assert list((tmp_path / "run").iterdir()) == []
