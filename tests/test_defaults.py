"""What a user gets who names nothing but a method: prior, units, solver and number of evaluations."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn

import vsmd
from vsmd import latent, random
from vsmd.model import Model
from vsmd.priors import PRIORS


class Counting(nn.Module):
    """The exact network of Gaussian data, which counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls += 1
        return 0 * z


@pytest.mark.parametrize("method", vsmd.METHODS)
def test_default_solver_serves_every_method_and_prior(method: str) -> None:
    data = torch.randn(64, 2, generator=random.generator(0, "defaults")) * torch.tensor([1.0, 30.0]) + 5
    modes = ["zero", "steered"] if method in ("CLD", "VSDM") else [None]
    for prior in PRIORS if method == "CLD" else ["moments"]:
        for mode in modes:
            process = vsmd.forward_process(method, (2,), prior=prior, variational_score=mode).with_units("standardised")
            process, network = process.with_data(data), Counting()
            if prior in ("mixture", "empirical"):
                process = process.with_prior(prior, data, components=2)
            x = Model(process, network).sample(4_000)
            assert network.calls == 20 + (not process.row.early_stop), (prior, mode)  # the last denoises
            loose = 0.3 if prior == "empirical" or method == "LSBDM" else 0.1
            assert ((x.std(0) / data.std(0) - 1).abs() < loose).all(), (prior, mode)


def test_names_of_the_defaults() -> None:
    assert vsmd.forward_process("VSULD", (2,)).prior == "moments"
    data = torch.randn(64, 2, generator=random.generator(0, "defaults"))
    assert vsmd.fit(vsmd.forward_process("CLD", (2,)), data, steps=1).process.units.name == "standardised"
    for sample in (Model.sample, latent.LatentModel.sample):
        parameters = inspect.signature(sample).parameters
        assert (parameters["solver"].default, parameters["steps"].default) == ("exponential", 20)
