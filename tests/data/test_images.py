"""Images: sources and their split, values, and what a user's own files may be."""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vsmd.data import image_files, images
from vsmd.data.images import ImageSet, load, tile, to_float, to_uint8

needs_cifar = pytest.mark.skipif(
    not os.environ.get("VSMD_DATA") or not (Path(os.environ["VSMD_DATA"]) / "cifar10").is_dir(),
    reason="VSMD_DATA is not set or holds no folder cifar10",
)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# ---- sources -------------------------------------------------------------------------------------


def test_digits() -> None:
    found = load("digits")
    assert found.shape == (1, 8, 8)
    assert len(found.train) == 1500
    assert len(found.test) == 297
    assert found.classes == tuple("0123456789")
    both = torch.cat([found.train, found.test])
    assert int(both.min()) == 0
    assert int(both.max()) == 255
    assert both.unique().tolist() == [round(v * 255 / 16) for v in range(17)]
    assert found.train_labels is not None
    assert found.train_labels.bincount().min() > 120  # every digit in both parts
    assert torch.equal(found.test, load("digits").test)
    from sklearn.datasets import load_digits

    counted = np.unique(load_digits().images.reshape(1797, -1), axis=0, return_counts=True)
    assert len(both.flatten(1).unique(dim=0)) == len(counted[0])  # no image lost or doubled


def test_mnist5k() -> None:
    found = load("mnist5k")
    assert found.shape == (1, 28, 28)
    assert (len(found.train), len(found.test)) == (4000, 1000)
    assert found.train_labels is not None
    assert found.test_labels is not None
    assert (found.train_labels.bincount() + found.test_labels.bincount()).tolist() == [500] * 10
    assert found.test_labels[:100].bincount().min() > 3  # the file stands in order of digits, the test part does not
    assert int(found.train.max()) == 255


@needs_cifar
def test_cifar10_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training grid and one of the test part, against the tiles read another way."""
    source = Path(os.environ["VSMD_DATA"]) / "cifar10"
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for part, count in (("train", 50), ("test", 10)):
        for i in range(count):
            (folder / f"{part}_{i:02d}.webp").symlink_to(source / f"{part}_00.webp")
        (folder / f"{part}_labels.npy").symlink_to(source / f"{part}_labels.npy")
    seen: list[Path] = []
    grid = np.asarray(Image.open(source / "train_00.webp").convert("RGB"))

    class Opened:
        def __init__(self, path: Path) -> None:
            seen.append(path)

        def convert(self, mode: str) -> np.ndarray:
            return grid

    monkeypatch.setattr(Image, "open", Opened)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VSMD_CACHE", str(tmp_path / "cache"))
    found = load("cifar10")
    assert (len(found.train), len(found.test), found.shape) == (50_000, 10_000, (3, 32, 32))
    assert found.classes[3] == "cat"
    assert found.train_labels is not None
    assert found.train_labels.bincount().tolist() == [5000] * 10
    row, column = 7, 31
    want = grid[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].transpose(2, 0, 1)
    assert np.array_equal(found.train[40 * row + column].numpy(), want)
    assert len(seen) == 60


def test_cifar10_npz_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = noise(20, 32, 32, 3), noise(5, 32, 32, 3)
    labels = np.arange(25, dtype=np.uint8) % 10
    np.savez(
        tmp_path / "cifar10.npz",
        train_images=train, test_images=test, train_labels=labels[:20], test_labels=labels[20:],
    )  # fmt: skip
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    found = load("cifar10")
    assert np.array_equal(found.train.numpy(), train.transpose(0, 3, 1, 2))
    assert found.classes == images.CIFAR10_CLASSES
    assert found.test_labels is not None
    assert sorted(found.test_labels.tolist()) == [0, 1, 2, 3, 4]  # in another order, images and labels together
    assert np.array_equal(found.test.numpy(), test.transpose(0, 3, 1, 2)[found.test_labels.numpy()])


def test_cifar10_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=refuse))
    monkeypatch.setenv("VSMD_CACHE", str(tmp_path))
    monkeypatch.delenv("VSMD_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"VSMD_DATA='' .*\(no network here\).*put a cifar10.npz there"
    ) as error:
        load("cifar10")
    assert "\n" not in str(error.value)


def test_cifar10_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, bool]] = []

    def give(root: Path, train: bool, download: bool) -> SimpleNamespace:
        assert download
        asked.append((root, train))
        return SimpleNamespace(data=noise(12 if train else 4, 32, 32, 3), targets=[3] * (12 if train else 4))

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=give))
    monkeypatch.setenv("VSMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    found = load("cifar10")
    assert np.array_equal(found.train.numpy(), noise(12, 32, 32, 3).transpose(0, 3, 1, 2))
    assert torch.equal(load("cifar10").test, found.test)
    assert asked == [(tmp_path / "cache", True), (tmp_path / "cache", False)]
    (tmp_path / "cache" / "cifar10.npz").write_bytes(b"half a file")
    assert torch.equal(load("cifar10").test, found.test)
    assert len(asked) == 4


@pytest.mark.parametrize("name", ["mine", "lab/mine.v2"])
def test_a_set_from_outside_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name looks like, a path too."""
    mine = ImageSet("mine", torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.ones(2, 1, 4, 4, dtype=torch.uint8))
    monkeypatch.setitem(images.SETS, name, lambda: mine)
    assert load(name) is mine
    with pytest.raises(ValueError, match="size=4: only the images of a folder"):
        load(name, 4)
    monkeypatch.delitem(images.SETS, name)
    with pytest.raises(ValueError, match=f"images='{name}'"):
        load(name)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        load("cifar-10")
    with pytest.raises(ValueError, match="no such folder or npz file"):
        load("missing/photos")
    with pytest.raises(ValueError, match="size=8: only the images of a folder"):
        load("digits", size=8)


# ---- values ---------------------------------------------------------------------------------------


def test_values_there_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = to_float(every)
    assert float(x.min()) == -1
    assert float(x.max()) == 1
    assert torch.equal(to_uint8(x), every)
    assert torch.equal(to_uint8(x + 0.49 / 127.5), every)
    assert to_uint8(torch.tensor([[-3.0, 3.0]])).tolist() == [[0, 255]]
    with pytest.raises(ValueError, match="1 of 2 images have NaN"):
        to_uint8(torch.tensor([[0.0], [float("nan")]]))


def test_tile() -> None:
    sheet = tile(torch.stack([torch.full((1, 2, 3), v, dtype=torch.uint8) for v in (10, 20, 30)]), columns=2)
    assert sheet.shape == (5, 7, 3)
    assert sheet[0, 0].tolist() == [10] * 3
    assert sheet[0, 3].tolist() == [255] * 3
    assert sheet[1, 6].tolist() == [20] * 3
    assert sheet[4, 2].tolist() == [30] * 3
    assert sheet[4, 6].tolist() == [255] * 3


# ---- bring your own ------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_folder_with_classes(tmp_path: Path) -> None:
    stock = noise(10, 6, 5, 3)
    for i, image in enumerate(stock):
        save(tmp_path / "own" / ("cats" if i % 2 else "ants") / f"{i}.png", image)
    found = load(tmp_path / "own")
    assert found.name == "own"
    assert found.shape == (3, 6, 5)
    assert found.classes == ("ants", "cats")
    assert (len(found.train), len(found.test)) == (9, 1)
    everything = torch.cat([found.train, found.test]).permute(0, 2, 3, 1).numpy()
    assert sorted(v.tobytes() for v in everything) == sorted(v.tobytes() for v in stock)
    assert found.train_labels is not None
    by_bytes = {image.tobytes(): i % 2 for i, image in enumerate(stock)}
    images_and_labels = zip(found.train.permute(0, 2, 3, 1).numpy(), found.train_labels.tolist())
    assert all(by_bytes[np.ascontiguousarray(v).tobytes()] == label for v, label in images_and_labels)


def test_folder_of_mixed_sizes(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", noise(6, 6 + i // 3))
    with pytest.raises(ValueError, match=r"3.png is 7 x 6, 0.png is 6 x 6; must be alike; give size="):
        load(tmp_path)
    assert load(tmp_path, size=4).shape == (1, 4, 4)
    assert load(str(tmp_path), size=4).train_labels is None


def test_folder_with_damage(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", noise(6, 6))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"2 of 5 files cannot be read and are left out: 3.png, 4.png"):
        found = load(tmp_path)
    assert len(found.train) + len(found.test) == 3
    (tmp_path / "2.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="3 of 5"),
        pytest.raises(ValueError, match=r"2 of 5 files can be read; at least 3"),
    ):
        load(tmp_path)


def test_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image files"):
        load(tmp_path)
    save(tmp_path / ".hidden" / "x.png", noise(6, 6, 3))
    with pytest.raises(ValueError, match="holds no image files"):
        load(tmp_path)


def everything(found: ImageSet) -> list[bytes]:
    """The images of both parts, in an order of their own."""
    return sorted(v.numpy().tobytes() for v in torch.cat([found.train, found.test]))


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    """As their notes say which side is up; a damaged note is no reason to leave one out."""
    stock = noise(4, 6, 5, 3)
    for i, image in enumerate(stock):
        notes = Image.Exif()
        notes[274] = (1, 3, 6, 8)[i]  # upright, upside down, turned to the left, to the right
        turned = np.rot90(image, (0, 2, 1, 3)[i])
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"{i}.png", exif=notes)
    Image.fromarray(stock[0]).save(tmp_path / "x.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    found = load(tmp_path)
    assert everything(found) == sorted(v.transpose(2, 0, 1).tobytes() for v in (*stock, stock[0]))


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", noise(6, 6))
    for hidden in (".ipynb_checkpoints/0.png", "__MACOSX/a/1.png", "a/.ipynb_checkpoints/2.png", "a/._3.png"):
        save(tmp_path / hidden, noise(6, 6))
    found = load(tmp_path)
    assert found.classes == ("a", "b")
    assert len(found.train) + len(found.test) == 6


def test_stray_pictures(tmp_path: Path) -> None:
    """The fewer: those beside class folders are left out, or a folder among pictures is no class."""
    for i in range(6):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", noise(6, 6))
    save(tmp_path / "stray.png", noise(6, 6))
    with pytest.warns(UserWarning, match=r"1 of 7 files lie beside the class folders and are left out: stray.png"):
        found = load(tmp_path)
    assert found.classes == ("a", "b")
    assert len(found.train) + len(found.test) == 6
    for i in range(6):
        save(tmp_path / f"{i}.png", noise(6, 6))
    with pytest.warns(UserWarning, match=r"7 of 13 files lie in no class folder: there are no labels"):
        found = load(tmp_path)
    assert found.train_labels is None
    assert len(found.train) + len(found.test) == 13


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    """In each of the modes that can carry it; what is opaque stays as it is, and nothing is said."""
    (tmp_path / "colour").mkdir()
    (tmp_path / "grey").mkdir()
    half = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    half.save(tmp_path / "colour" / "a.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "colour" / "b.png", transparency=0)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "colour" / "c.png", transparency=(1, 2, 3))
    with pytest.warns(UserWarning, match=r"of 3 files were converted: 3 \(transparency, laid on white\)$"):
        found = load(tmp_path / "colour")
    pixels = torch.cat([found.train, found.test])[:, :, 0, 0].tolist()
    assert sorted(pixels) == [[227, 177, 127], [255] * 3, [255] * 3]
    for i in range(3):
        Image.new("LA", (4, 4), (0, (0, 51, 255)[i])).save(tmp_path / "grey" / f"{i}.png")
    with pytest.warns(UserWarning, match=r"converted: 2 \(transparency"):
        found = load(tmp_path / "grey")
    assert sorted(torch.cat([found.train, found.test])[:, :, 0, 0].tolist()) == [[0], [204], [255]]


def test_one_of_another_mode_among_many(tmp_path: Path) -> None:
    """Grey, CMYK and 16 bits among RGB, and RGB among grey: as the most of them are, and how many is said."""
    for i in range(5):
        save(tmp_path / "rgb" / f"{i}.png", noise(6, 6, 3))
        save(tmp_path / "grey" / f"{i}.png", noise(6, 6))
    save(tmp_path / "rgb" / "x.png", np.full((6, 6), 90, np.uint8))
    Image.new("CMYK", (6, 6), (0, 255, 0, 0)).save(tmp_path / "rgb" / "y.tif")
    save(tmp_path / "grey" / "x.png", np.full((6, 6, 3), 70, np.uint8))
    save(tmp_path / "grey" / "y.png", np.full((6, 6), 257 * 33, np.uint16))
    with pytest.warns(UserWarning, match=r"rgb: of 7 files were converted: 1 \(CMYK\), 1 \(grey to RGB\)$"):
        found = load(tmp_path / "rgb")
    assert found.shape == (3, 6, 6)
    ends = [v[:, 0, 0].tolist() for v in torch.cat([found.train, found.test])]
    assert [90, 90, 90] in ends
    assert [255, 0, 255] in ends
    with pytest.warns(UserWarning, match=r"grey: of 7 files were converted: 1 \(16 bits\), 1 \(colours to grey\)$"):
        found = load(tmp_path / "grey")
    assert found.shape == (1, 6, 6)
    ends = [v[0, 0, 0].item() for v in torch.cat([found.train, found.test])]
    assert {33, 70} <= set(ends)


@pytest.mark.parametrize("error", [KeyError("tag"), TypeError("none"), IndexError(), MemoryError()])
def test_a_decoder_s_own_error_leaves_one_out(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Image.open

    def damaged(file: Path) -> Any:
        if file.suffix == ".tif":
            raise error
        return opened(file)

    for i in range(4):
        save(tmp_path / f"{i}.png", noise(6, 6))
    (tmp_path / "x.tif").write_bytes(b"II*\x00")
    monkeypatch.setattr(Image, "open", damaged)
    with pytest.warns(UserWarning, match=r"1 of 5 files cannot be read and are left out: x.tif"):
        assert len(load(tmp_path).train) == 3


@pytest.mark.parametrize("shape", [(12, 6, 5), (12, 6, 5, 1), (12, 1, 6, 5)])
def test_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stock = noise(*shape)
    np.savez(tmp_path / "own.npz", images=stock, labels=np.arange(12) % 3)
    found = load(tmp_path / "own.npz")
    assert found.shape == (1, 6, 5)
    assert (len(found.train), len(found.test)) == (11, 1)
    assert found.classes == ("0", "1", "2")
    assert found.train_labels is not None
    assert found.test_labels is not None
    for part, labels in ((found.train, found.train_labels), (found.test, found.test_labels)):
        for image, label in zip(part, labels.tolist()):
            (row,) = [i for i in range(12) if np.array_equal(stock[i].ravel(), image.numpy().ravel())]
            assert row % 3 == label


def test_npz_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, images=noise(4, 6, 5) / 255)
    with pytest.raises(TypeError, match="float64; must be uint8"):
        load(path)
    np.savez(path, pictures=noise(4, 6, 5))
    with pytest.raises(ValueError, match="must hold images, or train_images and test_images"):
        load(path)
    np.savez(path, images=noise(4, 6, 5, 2))
    with pytest.raises(ValueError, match=r"shape \(4, 6, 5, 2\)"):
        load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as npz"):
        load(path)
    np.savez(path, images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read as npz"):
        load(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 0.7, 1.0], "hold 0.7; must be class numbers"),
        ([0, 1, -1, 1], "hold -1; must be class numbers"),
        ([0, 1, float("nan"), 1], "hold nan; must be class numbers"),
        ([0, 1, 1], r"are int64 \(3,\); must be 4 class numbers, one an image"),
        (["cat", "dog", "cat", "dog"], r"are <U3 \(4,\); must be 4 class numbers"),
        ([0, 1, 100_000_000, 1], "hold 100000000; must be class numbers, whole ones from 0 to 3"),
        ([0, 1, 4, 1], "hold 4; must be class numbers, whole ones from 0 to 3"),
    ],
)
def test_labels_refused(labels: list[Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=noise(4, 6, 5), labels=np.array(labels))
    with pytest.raises(ValueError, match=f"^own: labels {message}"):
        load(tmp_path / "own.npz")


def test_labels_of_one_part_alone(tmp_path: Path) -> None:
    parts = {"train_images": noise(4, 6, 5), "test_images": noise(2, 6, 5)}
    np.savez(tmp_path / "own.npz", **parts, train_labels=np.zeros(4, np.int64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"has labels of train alone; must be of"):
        load(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", **parts, train_labels=np.zeros(4), test_labels=np.ones(2))  # type: ignore[arg-type]
    assert load(tmp_path / "own.npz").classes == ("0", "1")


def test_an_npz_file_that_would_grow_beyond_reason(tmp_path: Path) -> None:
    """70 MB of zeros in some 70 kB; 20 MB of them are small enough for any machine."""
    np.savez_compressed(tmp_path / "own.npz", images=np.zeros((70, 1000, 1000), np.uint8))
    assert (tmp_path / "own.npz").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"own.npz': cannot be read as npz \(its .* bytes would become 70,000,128"):
        load(tmp_path / "own.npz")
    np.savez_compressed(tmp_path / "own.npz", images=np.zeros((20, 1000, 1000), np.uint8))
    assert len(load(tmp_path / "own.npz").train) == 18


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the table of users, as in a container."""
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "VSMD_CACHE", "VSMD_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(FileNotFoundError, match=r"^VSMD_CACHE='': must name a folder for downloads"):
        load("cifar10")


def test_image_set_refuses() -> None:
    good = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match="float32; must be uint8"):
        ImageSet("x", good.float(), good)
    with pytest.raises(ValueError, match="test images"):
        ImageSet("x", good, good[:, :1])
    with pytest.raises(ValueError, match=r"train labels are torch.int64 \(3,\); must be int64 \(4,\)"):
        ImageSet("x", good, good, torch.zeros(3, dtype=torch.int64))
    for labels in ([0, 1, 2, 0], [0, 1, -1, 0]):
        with pytest.raises(ValueError, match=r"x: train labels are .* must be of the 2 classes"):
            ImageSet("x", good, good, torch.tensor(labels), classes=("a", "b"))
    with pytest.raises(ValueError, match="1 training images"):
        ImageSet("x", good[:1], good)


def test_an_npz_member_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", b"NUMPY with a damaged head")
    with pytest.raises(ValueError, match=r"^images='.*own.npz': cannot be read as npz \(images is no array\)$"):
        load(tmp_path / "own.npz")


def test_decoders_keep_their_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(file: Path) -> None:
        warnings.warn("Tag data larger than file", stacklevel=2)
        raise OSError

    monkeypatch.setattr(Image, "open", damaged)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert image_files._picture(tmp_path / "a.tif", None) is None
    assert not seen


@pytest.mark.parametrize("top", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_refused(top: float, dtype: type, tmp_path: Path) -> None:
    """Black and white of floats and of 32-bit numbers are nowhere said: 0 to 1 came out black."""
    for i in range(4):
        Image.fromarray((noise(6, 6) / 255 * top).astype(dtype)).save(tmp_path / f"{i}.tif")
    with pytest.raises(ValueError, match=r"^images='.*0.tif': (float|int)32; must have 8 or 16 bits, save it so$"):
        load(tmp_path)


@pytest.mark.parametrize("labels", [True, False])
def test_folders_that_are_parts(labels: bool, tmp_path: Path) -> None:
    """train/cat/…, val/dog/…: the parts as they are named, with the classes of both."""
    for part, count in (("Train", 6), ("val", 4)):
        for i in range(count):
            file = tmp_path / part / (("cat", "dog")[i % 2] if labels else "") / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), i + 100 * (part == "val"), np.uint8)).save(file)
    read = load(tmp_path)
    assert sorted(read.train[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert sorted(read.test[:, 0, 0, 0].tolist()) == [100, 101, 102, 103]
    assert read.classes == (("cat", "dog") if labels else ())
    if labels:
        assert read.train_labels is not None
        assert read.test_labels is not None
        assert (read.train_labels == read.train[:, 0, 0, 0] % 2).all()
        assert (read.test_labels == read.test[:, 0, 0, 0] % 2).all()
    (tmp_path / "test").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "test" / "0.png")
    with pytest.raises(ValueError, match=r"its folders are Train, test, val; must be train and test"):
        load(tmp_path)
