"""What people hold their points in, as tensors: arrays and frames, with or without contexts, datasets and loaders."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, TensorDataset
from torch.utils.data import default_collate as collated

from vsmd import checks, messages

DRAWS = 100_000  # of a sampler, for moments and priors
HELD = 2**26  # values of a sampler's draws that are held at once


def as_tensors(data: Any) -> Any:
    """Points (n, *shape), a pair (points, context), or a sampler as it is, without graphs; ValueError or TypeError.

    A Dataset is read once, item by item, and held; of a DataLoader its dataset counts, since we draw batches ourselves.
    """
    if isinstance(data, DataLoader):
        plain = type(data.sampler) in (SequentialSampler, RandomSampler) and type(data.batch_sampler) is BatchSampler
        if not plain or data.collate_fn is not collated:
            said = "has a sampler or collate_fn of its own; must be its dataset, or a function"
            raise TypeError(f"data=DataLoader: {said}")
        data = data.dataset
    if isinstance(getattr(data, "train", None), torch.Tensor):
        raise TypeError(f"data={type(data).__name__}: is a set in parts; must be one of them, as its .train")
    if isinstance(data, Dataset):
        data = data.tensors if isinstance(data, TensorDataset) else _read(data)
    if callable(data):
        return data
    if isinstance(data, tuple):
        if len(data) > 2 or not data:
            raise ValueError(f"data: a tuple of {len(data)}; must be a pair (points, context)")
        pair = [checks.tensor(name, value) for name, value in zip(("data", "context"), data)]
        return pair[0] if len(pair) == 1 else tuple(pair)
    return checks.tensor("data", data)


def points_of(data: Any, shape: tuple[int, ...], stream: torch.Generator, n: int = DRAWS) -> torch.Tensor:
    """The points (m, *shape) alone of whatever `as_tensors` takes; of a sampler n draws, of images some 2^26 numbers.

    Raises ValueError for those of another shape or not finite.
    """
    data = as_tensors(data)
    if callable(data):
        data = as_tensors(data(max(2, min(n, HELD // math.prod(shape))), stream))
    return checks.points("data", data[0] if isinstance(data, tuple) else data, shape)


def _read(data: Dataset[Any]) -> Any:
    """All items of a dataset, x or (x, context) each, as a tensor or a pair of tensors."""
    if not hasattr(data, "__len__"):
        raise TypeError(f"data={type(data).__name__}: has no length; give a function (n, generator) -> tensor")
    try:
        items = collated([data[i] for i in range(len(data))])
    except (TypeError, RuntimeError, IndexError) as error:
        said = f"its items must be x or (x, context), of one shape each ({messages.line(error, 120)})"
        raise TypeError(f"data={type(data).__name__}: {said}") from None
    return tuple(items) if isinstance(items, list) else items
