"""vsmd.training.levels: stratified times, exact levels in blocks, and the table that stands for them in images."""

from __future__ import annotations

import pytest
import torch

from vsmd import forward_process
from vsmd.training.levels import T_MIN, TABLE, Levels

CPU = torch.device("cpu")


def test_times_are_stratified() -> None:
    levels = Levels(3, 50, 2, CPU)
    for step in (0, 7, 1_400):
        t = levels.times(step)
        bins = ((t - T_MIN) / (1 - T_MIN) * 50).floor()
        assert torch.equal(bins, torch.arange(50, dtype=torch.float64))
    assert not torch.equal(levels.times(0), levels.times(1))
    assert torch.equal(levels.times(1_400), Levels(3, 50, 2, CPU).times(1_400))  # wherever a run begins


def test_exact_in_blocks() -> None:
    process = forward_process("ULD", (2,)).with_moments(torch.zeros(2), torch.tensor([1.0, 60.0]))
    levels = Levels(0, 50, 2, CPU)
    assert levels.block > 1
    snr, kappa = levels(process, 0, 5, slice(10, 30))
    want = process.snr(levels.times(5)[10:30])
    torch.testing.assert_close(snr, want[0].float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(kappa, want[1].float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["SGM", "CLD", "ULD", "VSULD"])
def test_the_table_is_close(method: str) -> None:
    """Also in constant directions, and after A has changed."""
    dim, batch = 1_024, 256
    var = torch.linspace(0, 1, dim).square()
    process = forward_process(method, (dim,), beta=10.0).with_moments(torch.zeros(dim), var)
    if method == "VSULD":
        process = process.with_stiffness(torch.linspace(0.5, 4, dim, dtype=torch.float64)[None])
    levels = Levels(0, batch, dim, CPU)
    assert batch * dim > TABLE
    assert levels.tabled
    rows = slice(64, 128)
    snr, kappa = levels(process, 0, 3, rows)
    want = process.snr(levels.times(3)[rows])
    torch.testing.assert_close(snr, want[0].expand_as(snr).float(), rtol=5e-4, atol=1e-11)
    torch.testing.assert_close(kappa, want[1].expand_as(snr).float(), rtol=5e-4, atol=1e-5)
    other = process.with_stiffness(2 * process.stiffness)
    changed, _ = levels(other, 1, 3, rows)
    torch.testing.assert_close(changed, other.snr(levels.times(3)[rows])[0].float(), rtol=5e-4, atol=1e-11)
