"""Reading a network's weights from PyTorch's old file format without unpickling: nothing in the file is executed.

Such a file is five pickles – magic number, version, platform, the state dict, the order of its storages – and then each
storage as an int64 length and that many numbers. The state dict's opcodes are walked here by a machine that knows how
to build dicts, tuples and views of storages, and refuses all else.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_REBUILD, _DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_PUSH = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_MARK = object()


class _Global(str):
    """The name of a Python object that the file refers to; the object itself is never looked up."""


def _value(file: IO[bytes]) -> Any:
    """The value of the pickle at the file's position, made of plain dicts, lists, tuples and scalars."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        at = len(stack) - 1 - next(i for i, v in enumerate(reversed(stack)) if v is _MARK)
        found = stack[at + 1 :]
        del stack[at:]
        return found

    for op, arg, _ in pickletools.genops(file):
        name: str = op.name
        if name in _PUSH:
            stack.append(arg)
        elif name == "GLOBAL" and arg in (_REBUILD, _DICT, *_DTYPES):
            stack.append(_Global(arg))
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}.get(name, lambda: _MARK)())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "REDUCE":  # f(*arguments): an empty dict, or what a tensor is made of
            arguments = stack.pop()
            stack[-1] = {} if stack[-1] == _DICT else arguments
        elif name in ("SETITEM", "SETITEMS"):
            items = above_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(zip(items[::2], items[1::2]))
        elif name == "APPENDS":
            items = above_mark()
            stack[-1].extend(items)
        elif name == "BUILD":  # attributes of the state dict: versions of its modules
            stack.pop()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "BINPERSID"):  # a persistent id stays the tuple that it is
            raise ValueError(f"opcode {name} {arg!r} has no place in a state dict")
    raise ValueError("ends within a pickle")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in PyTorch's old format (before 1.6), float32 and int64, by name.

    Raises ValueError naming the file where it is damaged, of another format or holds anything else.
    """
    try:
        with path.open("rb") as file:
            if _value(file) != MAGIC:
                raise ValueError("it is not of PyTorch's old format")
            _value(file), _value(file)  # version, platform
            state, keys = _value(file), _value(file)
            dtypes = {str(made[0][2]): _DTYPES[made[0][1]] for made in state.values()}
            storages = {}
            for key in keys:
                count = int(np.frombuffer(file.read(8), "<i8")[0])
                dtype = np.dtype(dtypes[key])
                storages[key] = torch.from_numpy(np.frombuffer(file.read(count * dtype.itemsize), dtype).copy())
        return {
            name: storages[made[0][2]].as_strided(made[2], made[3], made[1]).contiguous()
            for name, made in state.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, StopIteration) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"path={str(path)!r}: cannot be read as weights ({reason})") from None
