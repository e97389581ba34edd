"""vsmd.samplers.accuracy: what few steps make of Gaussian data, in closed form and as drawn; divergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import vsmd
from vsmd import random
from vsmd.model import Model
from vsmd.samplers import SOLVERS, make_solver, time_grid
from vsmd.samplers.accuracy import SolverWarning, widths

STIFF = (44.7, 58.9)  # that adaptation ends at for std (1, 8) x 1e4


class Scaled(nn.Module):
    """`strength` times the state: none is the exact network of Gaussian data."""

    def __init__(self, strength: float = 0.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return self.strength * z


def model(
    method: str = "VSCLD",
    std: Sequence[float] = (1.0, 8.0),
    stiffness: Sequence[float] = (2.4, 9.1),
    strength: float = 0,
) -> Model:
    process = vsmd.forward_process(method, (len(std),), beta=5.0)
    process = process.with_moments(torch.zeros(len(std)), torch.tensor(std).square())
    if process.k == 2:
        process = process.with_stiffness(torch.tensor([stiffness]))
    return Model(process, Scaled(strength))


def said(of: Model, *arguments: object, **options: object) -> list[str]:
    """The warnings of 10 samples."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        of.sample(10, *arguments, **options)  # type: ignore[arg-type]
    return [str(w.message) for w in seen if issubclass(w.category, SolverWarning)]


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "rk45"])
@pytest.mark.parametrize("method", ["SGM", "VSCLD"])
def test_widths_are_those_that_are_drawn(name: str, method: str) -> None:
    """Of 20,000 samples, at steps from which hardly any solver comes out right."""
    gaussian, times = model(method), time_grid(20, 1e-3, 2.0)
    if method == "SGM" and ("aboba" in name or "baoab" in name):
        return
    closed = widths(make_solver(name, gaussian.score, times))
    x = gaussian.sample(20_000, name, 20, denoise=False, checked=False).double()
    exact = torch.tensor([1.0, 8.0]).double().square() + gaussian.process.transition(1e-3).cov[:, 0, 0]
    assert torch.allclose(x.square().mean(0).sqrt() / exact.sqrt(), closed, rtol=0.03)
    if name.startswith("exponential"):
        assert torch.allclose(closed, torch.ones(2, dtype=torch.float64), atol=1e-4)


def test_stiff_processes_are_told() -> None:
    """Heun at the paper's 100 steps: 7 % too narrow at std 1e4, 16 % at 1e6, where its prior KL is fine: said."""
    fine = model(std=(1e4, 8e4), stiffness=STIFF)
    assert float(fine.process.moments_kl(0.0, fine.process.known().var).max()) < 0.01
    (line,) = said(fine, "heun", 50)
    assert line.startswith(
        "solver='heun', steps=50: too few for this process, Gaussian data of the same moments would "
    )
    assert line.endswith("times off in column 1; steps=100 or solver='exponential' would do")
    assert said(fine, "heun", 100) == []
    (line,) = said(model(std=(1e6, 8e6), stiffness=(77.6, 95.5)), "heun", 100)
    assert "0.838 times as wide" in line
    assert said(fine) == said(fine, "exponential", 2) == said(fine, "rk45", 1) == []
    assert said(fine, "heun", 20, checked=False) == []
    assert said(model(), "heun", 20) == []


def test_garbage_is_refused_before_it_is_drawn() -> None:
    """baoab-midpoint at 5 steps gave 1e6 without a word, 1e20 where A is stiff; the line says what would do."""
    with pytest.raises(FloatingPointError, match=r"^solver='baoab-midpoint', steps=5: too few .* steps=160 or solver="):
        model().sample(10, "baoab-midpoint", 5)
    with pytest.raises(FloatingPointError, match=r"^solver='baoab', steps=50: .*; solver='exponential' would do$"):
        model(std=(1e4, 8e4), stiffness=STIFF).sample(10, "baoab", 50)
    (line,) = said(model(), "heun", 5)
    assert "1.7 times as wide, 1.71 times off in column 1" in line
    assert "steps=20 or" in line


def test_narrow_directions_do_not_count() -> None:
    """One of a thousandth of the width is many times too wide at few steps, and no sample shows it."""
    thin = model("VSCLD", (1.0, 1e-3), (1.0, 1.0))
    assert float(widths(make_solver("heun", thin.score, time_grid(20, 1e-3, 2.0)))[0]) == pytest.approx(1, abs=0.05)
    assert said(thin, "heun", 20) == []


@pytest.mark.parametrize("solver", ["heun", "euler", "heun-sde", "rk45", "exponential"])
@pytest.mark.parametrize("strength", [30.0, math.nan])
def test_a_network_that_diverges(solver: str, strength: float) -> None:
    with pytest.raises(FloatingPointError, match=r"samples are (not finite|[\d.e+]+ times as wide)|flow is not finite"):
        model(strength=strength).sample(500, solver, 60)


def test_contexts_that_are_nan() -> None:
    """A network of one's own takes any context; what is no number is refused where it comes in."""

    class Told(nn.Module):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
            return z * 0 if context is None else 0 * z + context[:, None] * 1e-3

    told = Model(model().process, Told())
    context = torch.ones(4)
    assert told.sample(4, "heun", 20, context=context).shape == (4, 2)
    context[2] = math.nan
    with pytest.raises(ValueError, match=r"^context: must be finite, has NaN$"):
        told.sample(4, context=context)


def test_samples_stay_the_same_bits() -> None:
    """The check draws nothing: seeds give what they gave."""
    stream = random.generator(0, "unused")
    before = stream.get_state()
    assert torch.equal(model().sample(50, "heun", 20), model().sample(50, "heun", 20, checked=False))
    assert torch.equal(stream.get_state(), before)
