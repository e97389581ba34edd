"""Distances of a model's samples to its data, beside what as many real images score: the `evaluate` command."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vsmd import checks, files, random
from vsmd.data.image_files import ImageSet
from vsmd.images.sampling import Painter
from vsmd.images.training import together
from vsmd.metrics.distances import frechet_distance_of
from vsmd.metrics.frechet import EfficientNetFeatures, InceptionFeatures, kernel_distance
from vsmd.training.distributed import World

METRICS: dict[str, Callable[[str | torch.device], EfficientNetFeatures | InceptionFeatures]] = {
    "FD-EffNet": EfficientNetFeatures,
    "KID": EfficientNetFeatures,
    "FID": lambda device: InceptionFeatures("legacy_tensorflow", device),
    "FID-clean": lambda device: InceptionFeatures("clean", device),
}
Row = dict[str, Any]


def evaluate(
    painter: Painter,
    image_set: ImageSet,
    n: int = 2_000,
    *,
    metrics: Sequence[str] = ("FD-EffNet", "KID"),
    reference: int = 10_000,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[Row]:
    """Distances of samples to the data, a row a metric.

    Rows: metric, value, floor, n_samples, n_floor, n_reference, evaluations, features. value is of the samples, floor
    of n_floor test images (n, if there are so many), both against the same training images. Distances of fewer images
    are larger: compare at equal n. Called by all processes of a process group together, which share the drawing; labels
    of a conditional model take turns.

    painter: draws the images of the seeds `seed` … `seed + n - 1`.
    image_set: what the model was trained on.
    n: samples.
    metrics: names in `METRICS`, a row each; KID is of EfficientNet's features, as FD-EffNet.
    reference: training images to compare with (all, where there are not so many).
    device: where features are computed.
    Raises ValueError for an unknown metric or images of another shape, OSError without Inception's weights.
    """
    world, shape = World.current(), painter.model.process.shape
    for metric in metrics:
        checks.one_of("metrics", metric, METRICS)
    if shape != image_set.shape:
        raise ValueError(f"images {image_set.name}: of shape {image_set.shape}; the model draws {shape}")
    makers = {name: METRICS[name](device) for name in metrics} if world.first else {}  # before long work
    classes = getattr(painter.model.network, "classes", 0)
    labels = torch.arange(n) % classes if classes else None
    drawn = together(painter, range(seed, seed + checks.positive_int("n", n)), labels, world)
    if not world.first:
        return []
    order = torch.randperm(len(image_set.train), generator=random.generator(0, "reference"))
    known, real = image_set.train[order[:reference]], image_set.test[:n]
    rows = []
    for name, features in makers.items():
        ours, theirs, base = features(drawn), features(real), features(known)
        rows.append({
            "metric": name, "value": distance(name, ours, base), "floor": distance(name, theirs, base),
            "n_samples": n, "n_floor": len(real), "n_reference": len(known), "evaluations": painter.evaluations,
            "features": features.describes,
        })  # fmt: skip
    return rows


def distance(metric: str, features: Tensor, known: Tensor) -> float:
    """The value of a metric in `METRICS` for features (n, d) of images, against those of training images (m, d)."""
    return kernel_distance(features, known) if metric == "KID" else frechet_distance_of(features, known)


def report(rows: list[Row], path: Path | None) -> None:
    """Write rows as CSV where a path is given, and print them."""
    if path is not None and rows:
        with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(f"written to {path}", file=sys.stderr)
    for row in rows:
        print(
            f"{row['metric']} {row['value']:.5g} (real images: {row['floor']:.5g}, n = {row['n_floor']}) · "
            f"n = {row['n_samples']}, {row['evaluations']} evaluations, against {row['n_reference']} training images · "
            f"{row['features']}"
        )
