"""A set of images, and reading your own: from a folder of image files, or from an npz file."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.data.arrays import read

if TYPE_CHECKING:
    from PIL import Image

TEST_SHARE = 0.1  # of a set that comes without a test part
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_NPZ = tuple(f"{part}{kind}" for part in ("", "train_", "test_") for kind in ("images", "labels"))
_PARTS = {"train": "train", "training": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}


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
                size = tuple(images.shape)
                raise ValueError(f"{self.name}: {part} images {size}; must be (n, 1 or 3, height, width)")
            if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
                got = f"{labels.dtype} {tuple(labels.shape)}"
                raise ValueError(f"{self.name}: {part} labels are {got}; must be int64 ({len(images)},)")
            if labels is not None and not set(labels.tolist()) <= set(range(len(self.classes))):
                got = f"{int(labels.min())} to {int(labels.max())}"
                raise ValueError(f"{self.name}: {part} labels are {got}; must be of the {len(self.classes)} classes")
        if len(self.train) < 2:
            raise ValueError(f"{self.name}: {len(self.train)} training images; must be at least 2")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def split(
    name: str, images: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...], test: int | Tensor | None = None
) -> ImageSet:
    """A set whose test part is `test` images (a tenth by default) picked by a fixed seed, or those; (n, C, H, W)."""
    order = _order(n := len(images))
    if isinstance(test, Tensor):  # which ones, bool (n,)
        order, test = torch.cat([order[test[order]], order[~test[order]]]), int(test.sum())
    test = max(1, round(TEST_SHARE * n)) if test is None else test
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
    allowed = "(n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W)"
    raise ValueError(f"{name}: images of shape {images.shape}; must be {allowed}")


def from_npz(path: Path, name: str | None = None, classes: tuple[str, ...] = ()) -> ImageSet:
    """The set in an npz file, as `load` describes it; ValueError naming the file where it is damaged or holds none."""
    name = name or path.stem
    arrays = read("images", path, _NPZ)
    has_parts = "train_images" in arrays and "test_images" in arrays
    if not has_parts and "images" not in arrays:
        held = ", ".join(arrays) or "neither"
        raise ValueError(f"images={str(path)!r}: must hold images, or train_images and test_images; holds {held}")
    keys = ("train", "test") if has_parts else ("",)
    images = {k: _channels_first(name, arrays[f"{k}_images".strip("_")]) for k in keys}
    labels: dict[str, np.ndarray] = {k: arrays[n] for k in keys if (n := f"{k}_labels".strip("_")) in arrays}
    if labels and set(labels) != set(keys):
        raise ValueError(f"images={str(path)!r}: has labels of {next(iter(labels))} alone; must be of train and test")
    most = len(classes) or sum(map(len, images.values()))
    labels = {k: _class_numbers(f"{name}: labels", v, len(images[k]), most) for k, v in labels.items()}
    if labels and not classes:
        classes = tuple(map(str, range(1 + max(int(v.max()) for v in labels.values()))))
    if not has_parts:
        return split(name, images[""], labels.get(""), classes)
    order = _order(len(images["test"]))
    train, test = torch.from_numpy(images["train"]), torch.from_numpy(images["test"])[order]
    if not labels:
        return ImageSet(name, train, test)
    train_labels, test_labels = (torch.from_numpy(labels[k]) for k in keys)
    return ImageSet(name, train, test, train_labels, test_labels[order], classes)


def _class_numbers(where: str, values: np.ndarray, n: int, most: int) -> np.ndarray:
    """Labels as int64 (n,); ValueError for another number of them, or what is no whole number from 0 below `most`."""
    if values.shape != (n,) or values.dtype.kind not in "iuf":
        raise ValueError(f"{where} are {values.dtype} {values.shape}; must be {n} class numbers, one an image")
    wrong = values[~((values >= 0) & (values < most) & (values == np.floor(values)))]
    if len(wrong):
        raise ValueError(f"{where} hold {wrong[0]}; must be class numbers, whole ones from 0 to {most - 1}")
    return values.astype(np.int64)


def _plain(image: Image.Image, format: str | None) -> tuple[Image.Image, str]:
    """A picture as grey (L) or RGB, and what had to be changed for that; transparency is laid on white."""
    from PIL import Image

    grey = image.mode in ("1", "L", "LA")
    if image.mode == "F" or (image.mode == "I" and format == "TIFF"):  # 32 bits, of which nobody knows the white
        return image, ""
    if image.mode.startswith("I"):  # grey with 16 bits
        return Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)), "16 bits"
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        opaque = image.getchannel("A").getextrema()[0] == 255
        laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return laid.convert("L" if grey else "RGB"), "" if opaque else "transparency, laid on white"
    return image.convert("L" if grey else "RGB"), "" if image.mode in ("1", "L", "P", "RGB") else image.mode


def _picture(file: Path, size: int | None) -> tuple[np.ndarray, str] | None:
    """A file's pixels, upright, (height, width) or (height, width, 3), resized to `size`, and what was changed.

    None where it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as opened:
            image: Image.Image = opened
            with contextlib.suppress(Exception):  # the note on which side is up may be damaged alone
                image = ImageOps.exif_transpose(opened)
            image, change = _plain(image, opened.format)
            image = image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            return np.asarray(image), change
    except Exception:  # decoders of damaged files raise anything
        return None


def _files(folder: Path) -> list[Path]:
    """Paths of image files within a folder, sorted; hidden ones and those of macOS's archives are none.

    Beside class folders, files at the top are left out, unless they are the most: then there are no classes.
    """
    paths = sorted(f.relative_to(folder) for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    paths = [p for p in paths if not any(part.startswith(".") or part == "__MACOSX" for part in p.parts)]
    if not paths:
        raise ValueError(f"images={str(folder)!r}: holds no image files ({', '.join(sorted(_SUFFIXES))})")
    top = [path for path in paths if len(path.parts) == 1]
    if 2 * len(top) >= len(paths) or not top:
        return paths
    text = f"{len(top)} of {len(paths)} files lie beside the class folders and are left out: {checks.some(top)}"
    warnings.warn(f"{folder.name}: {text}", stacklevel=4)
    return [path for path in paths if len(path.parts) > 1]


def from_folder(folder: Path, size: int | None) -> ImageSet:
    """The images in a folder or its sub-folders – classes, or train and test with or without – in order of names."""
    paths = _files(folder)
    pictures: dict[Path, tuple[np.ndarray, str]] = {}
    for path in paths:
        if (picture := _picture(folder / path, size)) is None:
            continue
        if picture[0].dtype != np.uint8:
            raise ValueError(f"images={str(folder / path)!r}: {picture[0].dtype}; must have 8 or 16 bits, save it so")
        pictures[path] = picture
        first, here = (p[0].shape[1::-1] for p in (next(iter(pictures.values())), picture))
        if first != here:
            hint = f"{path} is {here[0]} x {here[1]}, {next(iter(pictures))} is {first[0]} x {first[1]}"
            raise ValueError(f"images: {hint}; must be alike; give size=… to resize them all")
    if unreadable := [path for path in paths if path not in pictures]:
        text = f"{len(unreadable)} of {len(paths)} files cannot be read and are left out: {checks.some(unreadable)}"
        warnings.warn(f"{folder.name}: {text}", stacklevel=3)
    if len(pictures) < 3:
        count = f"{len(pictures)} of {len(paths)} files can be read"
        raise ValueError(f"images={str(folder)!r}: {count}; at least 3 are needed")
    images, changes = _alike([pixels for pixels, _ in pictures.values()], [change for _, change in pictures.values()])
    if changes:
        warnings.warn(f"{folder.name}: of {len(pictures)} files were converted: {changes}", stacklevel=3)
    is_test = _held_out(folder, list(pictures))
    depth = int(is_test is not None)
    owners = [path.parts[depth] if len(path.parts) > 1 + depth else "" for path in pictures]
    if not all(owners):
        if any(owners):
            text = f"{owners.count('')} of {len(owners)} files lie in no class folder: there are no labels"
            warnings.warn(f"{folder.name}: {text}", stacklevel=3)
        return split(folder.name, images, None, (), is_test)
    classes = tuple(sorted(set(owners)))
    return split(folder.name, images, np.array([classes.index(o) for o in owners]), classes, is_test)


def _held_out(folder: Path, paths: list[Path]) -> Tensor | None:
    """Which of the images are the test part's, where sub-folders are parts; ValueError unless they are two."""
    tops = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
    parts = {top: _PARTS.get(top.lower(), "") for top in tops}
    if not all(parts.values()):
        return None
    if sorted(parts.values()) != ["test", "train"]:
        said = f"its folders are {', '.join(sorted(parts))}; must be train and test (or val); else name one of them"
        raise ValueError(f"images={str(folder)!r}: {said}")
    return torch.tensor([parts[top] == "test" for top in tops])


def _alike(pictures: list[np.ndarray], changes: list[str]) -> tuple[np.ndarray, str]:
    """Pictures (n, 1 or 3, H, W), grey or RGB as the most of them are, and in words what was changed in how many."""
    from PIL import Image

    rgb = 2 * sum(pixels.ndim == 3 for pixels in pictures) >= len(pictures)
    counts = Counter(filter(None, changes))
    for i, pixels in enumerate(pictures):
        if (pixels.ndim == 3) != rgb:
            pictures[i] = np.asarray(Image.fromarray(pixels).convert("RGB" if rgb else "L"))
            counts["grey to RGB" if rgb else "colours to grey"] += 1
    images = np.stack(pictures)
    first = images.transpose(0, 3, 1, 2) if rgb else images[:, None]
    return np.ascontiguousarray(first), ", ".join(f"{n} ({change})" for change, n in counts.items())
