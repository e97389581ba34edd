"""Arrays in npy and npz files: no pickle is loaded, and whatever is wrong is one line that names the file."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from vsmd import files, messages

UNPACKED = 300  # bytes that a byte of an npz file may hold; 64 MiB are always allowed


def read(name: str, path: Path, wanted: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Those arrays of an npz file that are `wanted` and there, or, if none are, that of an npy file, under "".

    Raises ValueError naming the argument `name` and the file: damaged, no such file, one that grows beyond reason.
    """
    try:
        with files.regular(path).open("rb") as opened:
            if wanted:
                with zipfile.ZipFile(opened) as archive:
                    unpacked = sum(e.file_size for e in archive.infolist() if Path(e.filename).stem in wanted)
                if unpacked > max(2**26, UNPACKED * (size := path.stat().st_size)):
                    raise ValueError(f"its {size:,} bytes would become {unpacked:,}, more than {UNPACKED} times")
                opened.seek(0)
            file = np.load(opened, allow_pickle=False)
            arrays = {key: file[key] for key in file.files if key in wanted} if wanted else {"": file}
        if other := [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{other[0] or 'an npz file'} is no array")
        return arrays
    except Exception as error:  # a damaged file may raise anything
        kind, reason = "npz" if wanted else "npy", messages.line(error, 120) or type(error).__name__
        raise ValueError(f"{name}={str(path)!r}: cannot be read as {kind} ({reason})") from None
