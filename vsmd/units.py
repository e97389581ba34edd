r"""Units that a process sees data in: an affine map, undone on the way out, so that noise levels mean the same for all.

    y = (x - mean) W,   W = I ("raw"), 1/std ("standardised": per coordinate), 1/rms std ("scaled": one for all), or
    Q/(std sqrt l) ("whitened": along the principal axes Q of the standardised data, whose variances l become 1),

    log p(x) = log p(y) + log |det W|.

Coordinates and axes that do not vary are not divided. Bases (`vsmd.bases`) turn y, an orthonormal turn after this map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vsmd.bases import Coordinates, Principal, Stream

UNITS = ("raw", "standardised", "scaled", "whitened")
LARGEST = 4_096  # dimensions that are whitened: a (d, d) matrix
ROUNDING = 1e-12  # a standard deviation over the mean, or a variance in units, up to which it counts as none
DIGITS = 1e5  # a mean over the standard deviation from which on float32 has no three digits of the data left


@dataclass(frozen=True, eq=False)
class Units:
    """Units by name; tensors, once data have been seen: "scale" (*shape), and whitened "axes" (d, d), "roots" (*shape).

    A model file holds the tensors as they are.
    """

    name: str = "raw"
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether the map is there: raw ones need no data."""
        return self.name == "raw" or bool(self.tensors)

    @property
    def log_det(self) -> float:
        """log |det W|."""
        return -float(sum(e.log().sum() for name, e in self.tensors.items() if name != "axes"))

    def into(self, x: Tensor) -> Tensor:
        """In these units, of centred data x (n, *shape)."""
        if "scale" in self.tensors:
            x = x / self.tensors["scale"].to(x)
        if "axes" in self.tensors:
            x = (x.flatten(1) @ self.tensors["axes"].to(x)).view_as(x) / self.tensors["roots"].to(x)
        return x

    def back(self, y: Tensor) -> Tensor:
        """Centred data of y (n, *shape) in these units."""
        if "axes" in self.tensors:
            y = ((y * self.tensors["roots"].to(y)).flatten(1) @ self.tensors["axes"].to(y).T).view_as(y)
        return y * self.tensors["scale"].to(y) if "scale" in self.tensors else y

    def seen(self, data: Stream, mean: Tensor) -> Iterator[Tensor]:
        """The data in these units, batch by batch, float64."""
        for batch in [data] if isinstance(data, Tensor) else data:
            yield self.into(batch.double().cpu() - mean)

    def fitted(self, data: Stream) -> tuple[Tensor, Units]:
        """The data's mean, and standardised, scaled or whitened units measured on them: one pass, or two.

        Raises ValueError for a stream that runs once only, and for whitening without a covariance of full rank: as
        many dimensions as points, or more than 4,096.
        """
        if not isinstance(data, Tensor) and iter(data) is data:
            raise ValueError(f"units={self.name!r}: need the data twice; must be a tensor or batches that begin again")
        mean, var = Coordinates(()).fitted(data)[0]
        std = var.sqrt() if self.name != "scaled" else var.mean().sqrt().expand(var.shape)
        scale = torch.where(std > ROUNDING * mean.abs(), std, torch.ones_like(std))
        units, dim = Units(self.name, {"scale": scale}), scale.numel()
        if self.name != "whitened":
            return mean, units
        if dim > LARGEST:
            raise ValueError(f"units='whitened': {dim} dimensions; must be at most {LARGEST}; use units='standardised'")
        count = sum(len(batch) for batch in ([data] if isinstance(data, Tensor) else data))
        if count <= dim:
            raise ValueError(
                f"units='whitened': {count} points in {dim} dimensions have no full covariance; must be more points "
                "than dimensions; use units='standardised'"
            )
        moments, turn = Principal(tuple(scale.shape)).fitted(units.seen(data, mean))
        roots = torch.where(moments.var > ROUNDING, moments.std, torch.ones_like(scale))
        return mean, Units(self.name, units.tensors | {"axes": turn.tensors["matrix"], "roots": roots})

    def digits_lost(self, mean: Tensor, var: Tensor) -> bool:
        """Whether data of that mean and variance (per direction, in these units) need float64 to be told apart."""
        scale = self.tensors.get("scale", var.mean().sqrt())
        return bool((mean.abs() > DIGITS * scale).logical_and(scale != 1).any())


RAW = Units()
