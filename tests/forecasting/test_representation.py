"""A representation from outside: one class and one line, and estimator, predictor and files take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vsmd.data.calendars import as_period
from vsmd.forecasting import VSMDEstimator, VSMDPredictor
from vsmd.forecasting.representation import REPRESENTATIONS, ForecastState
from vsmd.forecasting.series import Series
from vsmd.networks.conditional import ConditionalMLP
from vsmd.random import generator


@dataclass(frozen=True)
class Standardised:
    """y = mean + std x, all steps independent of each other and of the past."""

    name: ClassVar[str] = "standardised"
    defaults: ClassVar[dict[str, Any]] = {
        "basis": "principal", "width": 8, "depth": 1, "steps": 1, "batch_size": 16, "learning_rate": 1e-3,
    }  # fmt: skip
    history: ClassVar[int] = 1
    rows: ClassVar[int] = 1
    symmetric: ClassVar[bool] = False

    scaling: str = "std"
    mean: Tensor | None = None
    std: Tensor | None = None

    @classmethod
    def configured(cls, horizon: int, freq: str, scaling: str = "std") -> Standardised:
        return cls(scaling)

    @property
    def dim(self) -> int:
        return len(self.tensors["mean"])

    def size(self, dim: int) -> int:
        return dim

    def fitted(self, series: Sequence[Series]) -> Standardised:
        values = torch.cat([s.values for s in series])
        return replace(self, mean=values.mean(0), std=values.std(0, correction=0))

    def training_data(self, series: Sequence[Series], seed: int = 0) -> Tensor:
        values = torch.cat([s.values for s in series])
        return ((values - self.tensors["mean"]) / self.tensors["std"]).float()

    def network(self, dim: int, extra: int, width: int, depth: int, bf16: bool) -> nn.Module:
        return ConditionalMLP((dim,), width=width, depth=depth, bf16=bf16)

    def begin(self, pasts: Sequence[Series], network: nn.Module, horizon: int, device: torch.device) -> ForecastState:
        return Independent(self)

    @property
    def settings(self) -> dict[str, Any]:
        return {"scaling": self.scaling}

    @property
    def tensors(self) -> dict[str, Tensor]:
        assert self.mean is not None
        assert self.std is not None
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def restored(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Standardised:
        return cls(settings["scaling"], **tensors)


class Independent:
    """Forecasts that remember nothing."""

    def __init__(self, representation: Standardised) -> None:
        self.representation = representation

    def codes(self, draws: int) -> None:
        return None

    def advance(self, x: Tensor, others: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        return self.representation.tensors["mean"] + self.representation.tensors["std"] * x.double()


def test_a_third_representation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Correlated Gaussian noise: the untrained network is its exact score, so forecasts have its law, far and near."""
    monkeypatch.setitem(REPRESENTATIONS, Standardised.name, Standardised)
    mix = torch.linalg.cholesky(0.2 * torch.eye(2) + 0.8)
    values = 50 + mix @ torch.randn(2, 4_000, generator=generator(0, "noise"))
    items = [{"start": as_period("2024-01-01", "D"), "target": values.numpy()}]
    predictor = VSMDEstimator(3, "D", model="standardised", scaling="plain", seed=4).train(items)
    assert isinstance(predictor.representation, Standardised)
    assert predictor.representation.settings == {"scaling": "plain"}
    (forecast,) = predictor.predict(items, num_samples=4_000)
    for step in range(3):
        assert np.allclose(np.cov(forecast.samples[:, step].T), [[1.0, 0.8], [0.8, 1.0]], atol=0.1)
        assert np.allclose(forecast.samples[:, step].mean(0), 50, atol=0.1)
    predictor.serialize(tmp_path)
    (again,) = VSMDPredictor.deserialize(tmp_path).predict(items, num_samples=4_000)
    assert np.array_equal(again.samples, forecast.samples)


def test_names_are_the_keys() -> None:
    assert all(kind.name == name for name, kind in REPRESENTATIONS.items())
    with pytest.raises(ValueError, match=r"^model='standardised': must be one of 'increments'"):
        VSMDEstimator(3, "D", model="standardised")
