"""Files written whole or not at all; tensors with settings and a checksum as safetensors; no pickle.

Importing this loads no torch: whoever writes text only does not pay for it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsmd.messages import line, told

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new path beside `path`; what is written there takes its place at the end, or goes if anything is raised.

    `path` holds the old bytes or all of the new ones, whenever the process is killed. Folders are made. The suffix is
    kept, by which writers choose a format; the mode is what the user's mask leaves, whoever writes. OSError, one line
    naming `path`, where it cannot be written, say on a full disk.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        os.chmod(temporary, mode)  # safetensors leaves files that their owner alone can read
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)  # else a crash of the machine may leave the new name and no bytes
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"path={str(path)!r}: could not be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path, name: str = "path") -> Path:
    """The path; OSError, one line that names it, unless a file can be put there: asked before long work begins."""
    try:
        if path.is_dir():
            raise OSError("is a folder")
        with suppress(_Refused), replacing(path):
            raise _Refused
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise OSError(f"{name}={str(path)!r}: could not be written ({reason}); must be a file in a folder") from None
    return path


@contextmanager
def alone(folder: Path, refusal: str) -> Iterator[None]:
    """While entered no other process is let into `folder`, which is made; ValueError, `refusal`, where one is in it.

    The lock is the system's and goes with the process, however that ends; where there are no locks nothing is checked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(refusal) from None
        yield
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write text (UTF-8) or bytes through `replacing`: a reader sees the old content or the new, nothing between."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _digest(tensors: dict[str, Tensor], info: str) -> str:
    import torch

    state = hashlib.blake2b(info.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _plain(value: Any) -> Any:
    """Numbers of other libraries as Python's, for JSON."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"info: {type(value).__name__} cannot be written to a file")


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names `name`.…, as files hold them: on the CPU, one number after the other."""
    return {f"{name}.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Inverse of `prefixed`: those whose names begin with `name`., without it."""
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def write(path: Path, kind: str, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and JSON settings as a file of format `kind`: `path` holds the old bytes or all of the new ones.

    The same tensors and settings give the same bytes. OSError as `replacing` has it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps(info, default=_plain)
    # No two may share memory, as safetensors wants them: tied weights stand under all of their names.
    first = {value.untyped_storage().data_ptr(): name for name, value in reversed(tensors.items())}
    tensors = {k: v if first[v.untyped_storage().data_ptr()] == k else v.clone() for k, v in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": kind, "info": text, "digest": _digest(tensors, text)})
        except SafetensorError as error:
            raise OSError(line(error, 200)) from None
        _put_in_order(temporary)


def _put_in_order(path: Path) -> None:
    """Sort the metadata of a safetensors file, which the library leaves in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(content) <= size:  # as long as before, that is
            file.seek(8)
            file.write(content.ljust(size))


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a file of format `kind`; a one-line ValueError if missing, damaged or foreign."""
    with opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != kind:
            raise _Refused(f"holds {told(metadata.get('format', 'no vsmd format'))}, must be a {kind!r} file")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _digest(tensors, metadata["info"]) != metadata["digest"]:
            raise ValueError("its checksum does not match")
        info = json.loads(metadata["info"])
        if not isinstance(info, dict):
            raise ValueError("its settings are no JSON object")
        return tensors, info


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file, opened; whatever it raises is one line as of `refusing`, and so is what is no file."""
    from safetensors import safe_open

    with refusing(path), safe_open(str(regular(path)), framework="pt") as file:
        yield file


def regular(path: str | Path) -> Path:
    """The path; to be asked within `refusing`, which refuses what is there and no file: a pipe would be waited for."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError("is no file")
    return Path(path)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """ValueError that names a tensor with NaN or inf."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{name} has NaN or inf")


class _Refused(Exception):
    pass


# What is raised where a file holds other things than it should.
_FOREIGN = (OSError, LookupError, TypeError, RuntimeError, AttributeError, ValueError, ArithmeticError, MemoryError,
            EOFError, csv.Error, zlib.error)  # fmt: skip


@contextmanager
def refusing(path: str | Path, expected: str = "a safetensors file written by vsmd") -> Iterator[None]:
    """Turn whatever a damaged or foreign file raises while it is read into one line that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"path={str(path)!r}: does not exist; must be {expected}") from None
    except _Refused as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None
    except _FOREIGN + (SafetensorError,) as error:
        reason = line(error, 200)
        raise ValueError(f"path={str(path)!r}: is damaged or foreign ({reason}); must be {expected}") from None
