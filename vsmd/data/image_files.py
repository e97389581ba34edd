"""A set of images, and reading your own: from a folder of image files, or from an npz file."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsmd import random

TEST_SHARE = 0.1  # of a set that comes without a test part
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}  # modes of files, and what they are read as


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training and test images, uint8 (n, C, H, W) with C = 1 or 3, and their labels, int64 (n,) or None.

    Sets that are loaded have the test images in random order, always the same: the first n are a fair sample of them.
    classes: the labels' names, empty without labels.
    Raises ValueError for other shapes, TypeError for images that are not uint8.
    """

    name: str
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts = (("train", self.train, self.train_labels), ("test", self.test, self.test_labels))
        for part, images, labels in parts:
            if images.dtype != torch.uint8:
                raise TypeError(f"{self.name}: {part} images are {images.dtype}; must be uint8, 0 to 255")
            if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[1:] != self.train.shape[1:]:
                raise ValueError(
                    f"{self.name}: {part} images {tuple(images.shape)}; must be (n, 1 or 3, height, width)"
                )
            if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
                got = f"{labels.dtype} {tuple(labels.shape)}"
                raise ValueError(f"{self.name}: {part} labels are {got}; must be int64 ({len(images)},)")
        if len(self.train) < 2:
            raise ValueError(f"{self.name}: {len(self.train)} training images; must be at least 2")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def split(
    name: str, images: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...], test: int | None = None
) -> ImageSet:
    """A set whose test part is `test` images (a tenth by default) picked by a fixed seed; images (n, C, H, W)."""
    n = len(images)
    test = max(1, round(TEST_SHARE * n)) if test is None else test
    order = _order(n)
    rows = (order[test:].sort().values, order[:test])
    train, held_out = (torch.from_numpy(images)[r] for r in rows)
    if labels is None:
        return ImageSet(name, train, held_out)
    both = [torch.from_numpy(labels.astype(np.int64))[r] for r in rows]
    return ImageSet(name, train, held_out, both[0], both[1], classes)


def _order(n: int) -> Tensor:
    """0 … n - 1 in random order, always the same."""
    return torch.randperm(n, generator=random.generator(0, "image split"))


def _channels_first(name: str, images: np.ndarray) -> np.ndarray:
    """(n, H, W), (n, H, W, C) or (n, C, H, W) as (n, C, H, W); TypeError unless uint8, ValueError for other shapes."""
    if images.dtype != np.uint8:
        raise TypeError(f"{name}: images are {images.dtype}; must be uint8, 0 to 255")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise ValueError(
        f"{name}: images of shape {images.shape}; must be (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W)"
    )


def from_npz(path: Path, name: str | None = None, classes: tuple[str, ...] = ()) -> ImageSet:
    """The set in an npz file, as `load` describes it; ValueError naming the file where it is damaged or holds none."""
    name = name or path.stem
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = {k: file[k] for k in file.files if k.split("_")[-1] in ("images", "labels")}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"images={str(path)!r}: cannot be read as npz ({' '.join(str(error).split())[:120]})"
        ) from None
    has_parts = "train_images" in arrays and "test_images" in arrays
    if not has_parts and "images" not in arrays:
        held = ", ".join(arrays) or "neither"
        raise ValueError(f"images={str(path)!r}: must hold images, or train_images and test_images; holds {held}")
    keys = ("train", "test") if has_parts else ("",)
    labels: dict[str, np.ndarray] = {k: arrays[n] for k in keys if (n := f"{k}_labels".strip("_")) in arrays}
    if set(labels) != set(keys):
        labels = {}
    elif not classes:
        classes = tuple(map(str, range(1 + max(int(v.max()) for v in labels.values()))))
    images = {k: _channels_first(name, arrays[f"{k}_images".strip("_")]) for k in keys}
    if not has_parts:
        return split(name, images[""], labels.get(""), classes)
    order = _order(len(images["test"]))
    train, test = torch.from_numpy(images["train"]), torch.from_numpy(images["test"])[order]
    if not labels:
        return ImageSet(name, train, test)
    train_labels, test_labels = (torch.from_numpy(labels[k].astype(np.int64)) for k in keys)
    return ImageSet(name, train, test, train_labels, test_labels[order], classes)


def _picture(file: Path, name: str, size: int | None) -> np.ndarray | None:
    """A file's pixels, (height, width) or (height, width, 3), resized to `size`; None where it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            if opened.mode not in _MODES:
                raise ValueError(f"images: {name} has mode {opened.mode}; must be grey (L) or RGB, 8 bits a channel")
            image = opened.convert(_MODES[opened.mode])
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))


def from_folder(folder: Path, size: int | None) -> ImageSet:
    """The images in a folder or its sub-folders, in the order of their names."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    if not files:
        raise ValueError(f"images={str(folder)!r}: holds no image files ({', '.join(sorted(_SUFFIXES))})")
    pictures: dict[Path, np.ndarray] = {}  # by path within the folder
    unreadable: list[str] = []
    for path in (file.relative_to(folder) for file in files):
        pixels = _picture(folder / path, str(path), size)
        if pixels is None:
            unreadable.append(str(path))
            continue
        pictures[path] = pixels
        first = next(iter(pictures))
        if pixels.shape != pictures[first].shape:
            hint = "" if size is not None else "; give size=… to resize them all"
            kinds = f"{path} is {_kind(pixels)}, {first} is {_kind(pictures[first])}"
            raise ValueError(f"images: {kinds}; must be alike{hint}")
    if unreadable:
        some = ", ".join(unreadable[:5]) + (" …" if len(unreadable) > 5 else "")
        text = f"{folder.name}: {len(unreadable)} of {len(files)} files cannot be read and are left out: {some}"
        warnings.warn(text, stacklevel=3)
    if len(pictures) < 3:
        count = f"{len(pictures)} of {len(files)} files can be read"
        raise ValueError(f"images={str(folder)!r}: {count}; at least 3 are needed")
    images = _channels_first(folder.name, np.stack(list(pictures.values())))
    owners = [path.parts[0] if len(path.parts) > 1 else "" for path in pictures]
    if not all(owners):
        return split(folder.name, images, None, ())
    classes = tuple(sorted(set(owners)))
    return split(folder.name, images, np.array([classes.index(o) for o in owners]), classes)


def _kind(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    return f"{width} x {height} {'grey' if pixels.ndim == 2 else 'RGB'}"
