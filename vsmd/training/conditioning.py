"""What the data bring beside the points: a network that takes it by default, and refusals of one that does not."""

from __future__ import annotations

import torch
from torch import nn

from vsmd import random
from vsmd.data.kinds import DRAWS
from vsmd.networks.conditional import ConditionalMLP
from vsmd.networks.mlp import MLP
from vsmd.scores import Score
from vsmd.training.data import Source

CLASSES = 65_536  # at most, of a network that nobody has asked for


def default_network(source: Source, seed: int) -> nn.Module:
    """An `MLP`, or a `ConditionalMLP` for the data's labels or standardised features; ValueError for other contexts."""
    context = source.look(2, random.generator(seed, "contexts")).context
    if context is not None:
        context = source.look(DRAWS, random.generator(seed, "contexts")).context
    if context is None:
        return MLP(source.shape)
    values = context.double().view(len(context), -1)
    low, high = (float(v) for v in values.aminmax())
    if context.is_floating_point() and context.ndim <= 2:
        std = values.std(0, correction=0)
        units = torch.stack([values.mean(0), torch.where(std > 0, std, 1.0)]).tolist()
        return ConditionalMLP(source.shape, features=values.shape[1], units=units)
    if context.is_floating_point() or context.ndim != 1 or low < 0 or high >= CLASSES:
        raise ValueError(
            f"context: {context.dtype} {tuple(context.shape)}, {low:g} to {high:g}; must be labels (n,), integers from "
            f"0 to at most {CLASSES - 1}, or real numbers (n, features), else give a network that takes it"
        )
    return ConditionalMLP(source.shape, classes=int(high) + 1)


def check(source: Source, score: Score, dropout: float, seed: int) -> None:
    """Bring the source's contexts into the form that the network takes; ValueError where it ignores or lacks them."""
    name, takes = type(score.network).__name__, getattr(score.network, "conditioning", None)
    x, context = source.look(2, random.generator(seed, "contexts"))
    if context is None and takes is not None:
        raise ValueError(f"network={name}: takes {takes}, of which the data have none; must be given (points, context)")
    if context is not None and takes is None and score.ignores(context[:2]):
        raise ValueError(f"network={name}: ignores the context of the data; must take it, as ConditionalMLP does")
    if dropout and takes is None:
        raise ValueError(f"context_dropout={dropout:g}: must be 0 for a network without `conditioning`, or a context")
    if context is not None and takes is not None:
        context, source.conditioning = takes.checked(context, len(x)), takes
        if source.sampler is None:
            source.context = context
