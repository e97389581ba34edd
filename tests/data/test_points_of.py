"""Whatever `fit` takes for data, priors and diagnostics take, too."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vsmd import forward_process, latent
from vsmd.diagnostics import prior_gap
from vsmd.model import Model
from vsmd.networks.mlp import MLP

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0])
MODEL = Model(forward_process("CLD", (2,)).with_data(X), MLP((2,), width=8))
KINDS: dict[str, Any] = {
    "array": X.numpy(),
    "frame": pd.DataFrame(X.numpy()),
    "pair": (X, torch.arange(60)),
    "Dataset": TensorDataset(X, torch.arange(60)),
    "DataLoader": DataLoader(TensorDataset(X), batch_size=7, shuffle=True),
    "sampler": lambda n, generator: X,
}


@pytest.mark.parametrize("kind", KINDS)
def test_priors(kind: str) -> None:
    want = MODEL.with_prior("mixture", X, components=3).process.mixture
    got = MODEL.with_prior("mixture", KINDS[kind], components=3).process.mixture
    assert want is not None
    assert got is not None
    assert torch.allclose(want.means, got.means, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gaps(kind: str) -> None:
    assert prior_gap(MODEL.process, KINDS[kind]).gap == pytest.approx(prior_gap(MODEL.process, X).gap, rel=1e-4)


def test_latent_priors_and_diagnostics_of_arrays() -> None:
    codec = latent.pretrain(latent.VectorAutoencoder((2,), 1, 8), X, steps=2, batch_size=8)
    model = latent.fit(X, autoencoder=codec, bridge="CLD", steps=2, batch_size=8)
    means = [model.with_prior("empirical", data).process.mixture for data in (X, X.numpy())]
    assert means[0] is not None
    assert means[1] is not None
    assert torch.equal(means[0].means, means[1].means)
    assert torch.allclose(MODEL.process.prior_kl(X.numpy()), MODEL.process.prior_kl(X))


@pytest.mark.parametrize(("data", "error", "message"), [
    (X[:, :1], ValueError, r"^data=\(60, 1\): must be a tensor of shape \(n, 2\)"),
    (X * torch.nan, ValueError, r"^data: must be finite"),
    ("points.csv", TypeError, r"^data=str: must be a tensor, a numpy array or a pandas DataFrame$"),
])  # fmt: skip
def test_what_is_none_is_one_line(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MODEL.with_prior("empirical", data)
