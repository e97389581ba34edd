"""Model files and checkpoints: safetensors written atomically, with settings and a checksum; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def _digest(tensors: dict[str, Tensor], info: str) -> str:
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


def write(path: Path, kind: str, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and JSON settings as a file of format `kind`: `path` holds the old bytes or all of the new ones."""
    text = json.dumps(info, default=_plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, {"format": kind, "info": text, "digest": _digest(tensors, text)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a file of format `kind`; a one-line ValueError if missing, damaged or foreign."""
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
