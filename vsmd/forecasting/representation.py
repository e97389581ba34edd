"""What estimator and predictor ask of a representation: what of a panel is learned, and how forecasts go on from it.

A representation is one class with the members of `Representation` and one entry of `REPRESENTATIONS`, by whose key
`VSMDEstimator(model=...)` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from vsmd.forecasting.increments import Increments
from vsmd.forecasting.series import Series
from vsmd.training.data import Data


class ForecastState(Protocol):
    """The paths of a forecast so far, `draws` of each window, and what the network is told before their next step."""

    def codes(self, draws: int) -> Tensor | None:
        """The network's codes (windows * draws, width) of the next step, window by window; None without a context."""

    def advance(self, x: Tensor, others: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Append what was drawn: x (windows, draws, r) of the modelled directions; the values (windows, draws, d).

        others (windows, draws, d - r): standard normals for the directions that the network does not model. known
        (windows, d): values that stand for those drawn, NaN where there is none; given where a past ends ragged.
        """


class Representation(Protocol):
    """What a model is trained on and forecasts from; immutable, `fitted` returns a new one.

    name: its key in `REPRESENTATIONS`. defaults: of the estimator's `basis`, `width`, `depth`, `steps`, `batch_size`
    and `learning_rate`.
    """

    name: ClassVar[str]
    defaults: ClassVar[dict[str, Any]]

    @classmethod
    def configured(cls, horizon: int, freq: str, *args: Any, **options: Any) -> Self:
        """From the horizon, the frequency and the estimator's `options`, keywords of its own that it checks."""

    @property
    def history(self) -> int:
        """Number of past values that a forecast needs."""

    @property
    def rows(self) -> int:
        """Number of rows that one of the estimator's `batch_size` stands for."""

    @property
    def symmetric(self) -> bool:
        """Whether draws come in antithetic pairs; its `tensors` hold `least` (d,) then, a lower bound of values."""

    @property
    def dim(self) -> int:
        """Number d of series that it is fitted to."""

    def size(self, dim: int) -> int:
        """Number of directions that the network models, of d = `dim` series."""

    def fitted(self, series: Sequence[Series]) -> Self:
        """The representation of training series; ValueError for those that it cannot represent."""

    def training_data(self, series: Sequence[Series], seed: int = 0) -> Data:
        """What `vsmd.fit` trains on, rows (n, size) with or without a context; random choices are the seed's."""

    def network(self, dim: int, extra: int, width: int, depth: int, bf16: bool) -> nn.Module:
        """A fresh network for d = `dim` series with `extra` real features beside them."""

    def begin(self, pasts: Sequence[Series], network: nn.Module, horizon: int, device: torch.device) -> ForecastState:
        """The state of forecasts of `horizon` steps, one window for each of the `pasts`, all of `history` steps."""

    @property
    def settings(self) -> dict[str, Any]:
        """The plain settings, as JSON values."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What was fitted."""

    @classmethod
    def restored(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Inverse of `settings` and `tensors`."""


def length_of(representation: Representation) -> str:
    """What the length of a history that a forecast needs is made of, for messages."""
    sizes = {k: v for k, v in representation.settings.items() if k in ("scale_window", "context_length")}
    lags = representation.history - sum(sizes.values())
    return " + ".join([*(f"{name}={size}" for name, size in sizes.items()), f"{lags} of lags"])


REPRESENTATIONS: dict[str, type[Representation]] = {Increments.name: Increments}
