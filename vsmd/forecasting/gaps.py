"""Missing values: carried forward where a value is needed to look back at, drawn where the network learns from them."""

from __future__ import annotations

import torch
from torch import Tensor


def carried(values: Tensor) -> Tensor:
    """Values (T, d) with gaps filled by the last value before, at the beginning by the first one."""
    index = torch.where(values.isnan(), -1, torch.arange(len(values))[:, None]).cummax(0).values
    first = (~values.isnan()).int().argmax(0)
    return values.gather(0, torch.where(index < 0, first, index))


def age(values: Tensor) -> Tensor:
    """Steps (T, d) since the last value of (T, d) up to there, 0 where there is one; from the beginning without."""
    index = torch.arange(len(values))[:, None]
    return index - torch.where(values.isnan(), 0, index).cummax(0).values


def ending(values: Tensor) -> Tensor:
    """Number (d,) of values (T, d) that are missing at the end."""
    return age(values)[-1]


def root_mean_square(values: Tensor) -> Tensor:
    """Root mean square (d,) of values (n, d), missing ones left out; 0 where there are none."""
    return values.square().nanmean(0).nan_to_num().sqrt()


def covariance(xi: Tensor) -> Tensor:
    """Mean outer product (d, d) over the rows that have both values."""
    observed = (~xi.isnan()).double()
    filled = xi.nan_to_num().double()
    return filled.T @ filled / (observed.T @ observed).clamp(min=1)


def completed(xi: Tensor, stream: torch.Generator) -> Tensor:
    """xi (n, d) with missing values drawn from the Gaussian law given those of the same row that are observed."""
    gaps = xi.isnan()
    if not bool(gaps.any()):
        return xi
    xi, law = xi.clone(), covariance(xi)
    law = law + 1e-6 * torch.diag(law.diagonal())
    for row in gaps.any(1).nonzero().flatten().tolist():
        missing = gaps[row]
        observed = ~missing
        gain = torch.linalg.solve(law[observed][:, observed], law[observed][:, missing])
        conditional = law[missing][:, missing] - law[missing][:, observed] @ gain
        values, vectors = torch.linalg.eigh(conditional)
        noise = torch.randn(len(values), generator=stream, dtype=xi.dtype)
        xi[row, missing] = xi[row, observed] @ gain + vectors @ (values.clamp(min=0).sqrt() * noise)
    return xi
