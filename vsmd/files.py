"""Files written whole or not at all; tensors with settings and a checksum as safetensors; no pickle.

Importing this loads no torch: whoever writes text only does not pay for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new path beside `path`; what is written there takes its place at the end, or goes if anything is raised.

    `path` holds the old bytes or all of the new ones, whenever the process is killed. Folders are made. The suffix is
    kept, by which writers choose a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)  # else a crash of the machine may leave the new name and no bytes
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """Write tensors and JSON settings as a file of format `kind`: `path` holds the old bytes or all of the new ones."""
    from safetensors.torch import save_file

    text = json.dumps(info, default=_plain)
    tensors = _apart(tensors)
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"format": kind, "info": text, "digest": _digest(tensors, text)})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two share memory, as safetensors wants them: tied weights stand under all of their names."""
    first = {value.untyped_storage().data_ptr(): name for name, value in reversed(tensors.items())}
    return {k: v if first[v.untyped_storage().data_ptr()] == k else v.clone() for k, v in tensors.items()}


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a file of format `kind`; a one-line ValueError if missing, damaged or foreign."""
    from safetensors import SafetensorError, safe_open

    with refusing(path):
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise _Refused(f"holds {metadata.get('format', 'no vsmd format')!r}, must be a {kind!r} file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _digest(tensors, metadata["info"]) != metadata["digest"]:
            raise SafetensorError("its checksum does not match")
        return tensors, json.loads(metadata["info"])


class _Refused(Exception):
    pass


@contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Turn whatever a damaged or foreign file raises while it is read into one line that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"path={str(path)!r}: does not exist; must be a safetensors file written by vsmd") from None
    except _Refused as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"path={str(path)!r}: is damaged or foreign ({reason}); must be a safetensors file written by vsmd"
        ) from None
