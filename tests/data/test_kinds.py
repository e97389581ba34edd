"""Whatever people hold their points in trains the same model as a tensor does; what is none is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from vsmd import fit, forward_process, latent
from vsmd.data.points import PointSet
from vsmd.model import Model
from vsmd.networks.mlp import MLP

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0])
LABELS = torch.arange(60) % 3
FRAME = pd.DataFrame(X.numpy(), columns=["a", "b"])


class Items(Dataset[Any]):
    """Points, or pairs with numbers of Python for labels."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, i: int) -> Any:
        row = [column[i] for column in self.columns]
        return row[0] if len(row) == 1 else (row[0], int(row[1]))


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter(X)


def train(data: Any) -> Model:
    return fit(forward_process("CLD", (2,)), data, steps=4, batch_size=16)


def weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


@pytest.fixture(scope="module")
def alone() -> Tensor:
    return weights(train(X))


@pytest.fixture(scope="module")
def told() -> Tensor:
    return weights(train((X, LABELS)))


KINDS = {
    "array": X.numpy(),
    "float64": X.double().numpy(),
    "reversed twice, big-endian": np.ascontiguousarray(X.numpy()[::-1]).astype(">f4")[::-1],
    "frame": FRAME,
    "TensorDataset": TensorDataset(X),
    "Dataset": Items(X),
    "Dataset of arrays": Items(X.numpy()),
    "Subset": Subset(Items(X), range(60)),
    "ConcatDataset": ConcatDataset([Items(X[:20]), Items(X[20:])]),
    "DataLoader": DataLoader(TensorDataset(X), batch_size=7, shuffle=True, drop_last=True),
    "a tuple of one": (X,),
    "with a graph": (X.clone().requires_grad_() * 1.0),
}
PAIRS = {
    "arrays": (X.numpy(), LABELS.numpy()),
    "frame and column": (FRAME, pd.Series(LABELS.numpy(), name="label")),
    "uint8": (X, LABELS.to(torch.uint8)),
    "TensorDataset": TensorDataset(X, LABELS),
    "Dataset": Items(X, LABELS),
    "DataLoader": DataLoader(Items(X, LABELS), batch_size=7),
}


DOUBLE = ("float64", "frame", "frame and column")  # centred in the precision that they have


@pytest.mark.parametrize("kind", KINDS)
def test_points(kind: str, alone: Tensor) -> None:
    expected = weights(train(X.double())) if kind in DOUBLE else alone
    assert torch.equal(weights(train(KINDS[kind])), expected)


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs(kind: str, told: Tensor) -> None:
    expected = weights(train((X.double(), LABELS))) if kind in DOUBLE else told
    assert torch.equal(weights(train(PAIRS[kind])), expected)


def test_samplers_may_answer_in_arrays() -> None:
    def draw(n: int, generator: torch.Generator) -> Any:
        return torch.randn(n, 2, generator=generator)

    assert torch.equal(weights(train(lambda n, g: draw(n, g).numpy())), weights(train(draw)))


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a column of text": (
        FRAME.assign(name="x", more="y"),
        TypeError,
        r"^data: column 'name' holds object; must hold numbers$",
    ),
    "a gap": (FRAME.drop(index=3).reindex(FRAME.index), ValueError, r"^data: must be finite, 1 of 60 rows"),
    "whole numbers": (X.long().numpy(), TypeError, r"^data: dtype torch.int64 must be a floating one"),
    "text": (np.array([["a", "b"]]), TypeError, r"^data: array of <U1; must hold numbers$"),
    "complex": (np.zeros((9, 2), complex), TypeError, r"^data: array of complex128; must hold numbers$"),
    "three": ((X, LABELS, LABELS), ValueError, r"^data: a tuple of 3; must be a pair \(points, context\)$"),
    "weighted": (
        DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 60, 60)),
        TypeError,
        r"^data=DataLoader: has a sampler or collate_fn of its own; must be its dataset, or a function$",
    ),
    "collated": (DataLoader(TensorDataset(X), collate_fn=len), TypeError, r"^data=DataLoader: has a sampler or"),
    "endless": (Endless(), TypeError, r"^data=Endless: has no length; give a function"),
    "ragged": (
        Items([torch.zeros(2), torch.zeros(3)]),
        TypeError,
        r"^data=Items: its items must be x or \(x, context\)",
    ),
    "dictionaries": (Items([{"x": 1.0}] * 3), TypeError, r"^data=dict: must be a tensor"),
    "a name": ("points.csv", TypeError, r"^data=str: must be a tensor, a numpy array or a pandas DataFrame$"),
}


@pytest.mark.parametrize("kind", BAD)
def test_refused(kind: str) -> None:
    data, error, message = BAD[kind]
    with pytest.raises(error, match=message) as caught:
        train(data)
    assert "\n" not in str(caught.value)


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_samples_and_contexts_with_a_graph() -> None:
    """Codes of an encoder that still has its graph: nothing goes back through it a second time."""
    encoder = torch.nn.Linear(2, 2)

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = encoder(torch.randn(n, 2, generator=generator))
        return x, x[:, :1]

    model = train(lambda n, generator: draw(n, generator)[0])
    told = train(draw)
    for data in (encoder(X), (encoder(X), encoder(X))):
        assert not train(data).sample(2, steps=2, context=None if isinstance(data, Tensor) else X[:2]).requires_grad
    assert encoder.weight.grad is None
    x, context = draw(5, torch.Generator().manual_seed(0))
    assert not model.log_prob(x).requires_grad
    assert torch.equal(told.log_prob(x, context=context), told.log_prob(x.detach(), context=context.detach()))
    assert not told.sample(5, steps=2, context=context).requires_grad


def test_densities_of_arrays() -> None:
    model = Model(forward_process("CLD", (2,)).with_data(X), MLP((2,), width=8))
    assert torch.equal(model.log_prob(X[:5].numpy()), model.log_prob(X[:5]))  # type: ignore[arg-type]
    assert torch.equal(model.log_prob(FRAME[:5]), model.log_prob(X[:5].double()))  # type: ignore[arg-type]


def test_latent_space_takes_them_too() -> None:
    """Pre-training and bridge, of an array with a graph behind it or not."""
    data = X @ torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"steps": 3, "batch_size": 8}
    models = []
    for kind in (data, data.numpy(), DataLoader(TensorDataset(data)), data.clone().requires_grad_() * 1.0):
        codec = latent.pretrain(latent.VectorAutoencoder((3,), 2, 8), kind, **options)
        models.append(latent.fit(kind, autoencoder=codec, bridge="CLD", **options))
    assert all(torch.equal(m.sample(4, steps=2), models[0].sample(4, steps=2)) for m in models[1:])


def test_a_set_in_parts_names_its_part() -> None:
    parts = PointSet("own", X, X, X, ("a", "b"))
    with pytest.raises(TypeError, match=r"^data=PointSet: is a set in parts; must be one of them, as its \.train$"):
        fit(forward_process("CLD", (2,)), parts, steps=1)
