"""vsmd.images.pictures: batches of uint8 images, mirrored or not, with their labels."""

from __future__ import annotations

import numpy as np
import torch

from vsmd.data.images import to_float
from vsmd.images.pictures import Pictures
from vsmd.random import generator


def test_draws_of_training_images() -> None:
    stock = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8))
    labels = torch.arange(6)
    drawn = Pictures(stock, flips=True, labels=labels)(500, generator(0))
    again = Pictures(stock, flips=True, labels=labels)(500, generator(0))
    assert isinstance(drawn, tuple)
    assert isinstance(again, tuple)
    x, which = drawn
    assert torch.equal(x, again[0])
    assert x.dtype == torch.float32
    stored = to_float(stock)[which]
    straight = (x == stored).flatten(1).all(1)
    turned = (x == stored.flip(-1)).flatten(1).all(1)
    assert bool((straight | turned).all())
    assert abs(int(turned.sum()) - 250) < 60
    assert len(which.unique()) == 6
    plain = Pictures(stock)(50, generator(1))
    assert isinstance(plain, torch.Tensor)
    assert {tuple(v.flatten().tolist()) for v in plain} <= {tuple(v.flatten().tolist()) for v in to_float(stock)}
