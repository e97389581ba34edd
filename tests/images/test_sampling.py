"""vsmd.images.sampling: an image is a function of its seed, whatever the batch, the order and the solver."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tinyimages import awake, config, pictures

from vsmd import Model
from vsmd.images import Painter
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import FIXED
from vsmd.samplers import SOLVERS, as_solver
from vsmd.training import Compute


def model(method: str = "ULD", **fields: Any) -> Model:
    chosen = config(method=method, **fields)
    data = Pictures(pictures().train)
    process = chosen.process((1, 4, 4)).with_data(data.all_batches())
    return Model(process, awake(chosen.build((1, 4, 4), 2)).eval())


def count(model: Model) -> list[int]:
    """How many images each call of the model's network gets, from now on."""
    calls: list[int] = []
    model.network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    return calls


@pytest.mark.parametrize("solver", FIXED)
def test_an_image_depends_on_its_seed_alone(solver: str) -> None:
    """In batches of another size and order; as many evaluations as asked for."""
    one = Painter(model(), solver, 6, batch_size=5, checked=False)
    two = Painter(model(), solver, 6, batch_size=2, checked=False)
    seeds = [3, 1, 4, 15, 9]
    whole = one.floats(seeds)
    for i, seed in enumerate(seeds):
        torch.testing.assert_close(two.floats([seed])[0], whole[i], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(two.floats([9, 3]), whole[[4, 0]], rtol=1e-5, atol=1e-4)
    assert float((whole[0] - whole[1]).abs().max()) > 0.1
    drawn = one(seeds)
    assert drawn.dtype == torch.uint8
    assert int((drawn.int() - two(seeds).int()).abs().max()) <= 1
    calls = count(one.model)
    one(seeds)
    each = as_solver(solver).evaluations
    assert sum(calls) == 5 * one.evaluations == 5 * (5 // each * each + 1)  # whole steps, and the denoising


@pytest.mark.parametrize("denoise", [False, True])
def test_a_painter_draws_what_the_model_samples(denoise: bool) -> None:
    painter = Painter(model(), "heun", 8 + denoise, denoise=denoise, checked=False)
    assert painter.evaluations == 8 + denoise
    sampled = painter.model.sample(solver="heun", steps=4, seeds=[5, 2], denoise=denoise, checked=False)
    torch.testing.assert_close(painter.floats([5, 2]), sampled)


@pytest.mark.parametrize(("method", "left"), [("SGM", 0.0997), ("CLD", 0.00498)])
def test_denoising_removes_the_noise_of_the_last_time(method: str, left: float) -> None:
    """Gaussian pixels, known exactly by a network of zeros: what stays of a constant one without denoising, and with.

    left: sqrt of Sigma_xx at t = 1e-3; SGM's is 1 - e^{-.01}. E[x_0 | a] has variance std^2 snr^2/(1 + snr^2).
    """
    std = torch.linspace(0, 0.4, 16, dtype=torch.float64).view(1, 4, 4)
    chosen = config(method=method, beta=10.0)
    process = chosen.process((1, 4, 4)).with_moments(torch.zeros_like(std), std.square())
    known = Model(process, chosen.build((1, 4, 4), 0).eval())  # its output is zero before training
    noisy, clean = (
        Painter(known, "exponential", 6, batch_size=4_000, denoise=denoise).floats(range(4_000)).double().std(0)
        for denoise in (False, True)
    )
    t = torch.tensor([1e-3])
    law, snr = process.covariance(process.kernel(t), std.square())[0][0][0].sqrt(), process.snr(t)[0][0]
    torch.testing.assert_close(noisy, law, rtol=0.05, atol=0)
    assert float(noisy[0, 0, 0]) == pytest.approx(left, rel=0.05)
    torch.testing.assert_close(clean, std * snr / (1 + snr.square()).sqrt(), rtol=0.05, atol=1e-9)


def test_labels_reach_the_network() -> None:
    painter = Painter(model(conditional=True), evaluations=4)
    one, two = painter.floats([0, 0], torch.tensor([0, 1]))
    assert float((one - two).abs().max()) > 1e-3
    with pytest.raises(ValueError, match=r"^context=None: the network takes labels"):
        painter([0])


def test_bfloat16_is_near() -> None:
    exact = Painter(model(), evaluations=6).floats(range(4))
    near = Painter(model(), evaluations=6, compute=Compute("bfloat16")).floats(range(4))
    assert near.dtype == torch.float32
    assert 0 < float((exact - near).abs().mean()) < 0.05 * float(exact.std())


def test_no_images_and_bad_values() -> None:
    assert Painter(model(), evaluations=4)([]).shape == (0, 1, 4, 4)
    for solver, evaluations, message in (
        ("heun", 2, r"^evaluations=2: must be at least 3, what a step of heun and denoising take$"),
        ("heun", 0, r"^evaluations=0: must be an integer >= 1$"),
        ("hein", 4, r"^solver='hein': .*did you mean 'heun'"),
        ("rk45", 4, r"^solver='rk45': takes as many evaluations as it needs; give steps instead$"),
    ):
        with pytest.raises(ValueError, match=message):
            Painter(model(), solver, evaluations)
    with pytest.raises(ValueError, match=r"^evaluations=1: must be at least 2, what a step of heun takes$"):
        Painter(model(), "heun", 1, denoise=False)
    with pytest.raises(ValueError, match=r"^solver='aboba': SGM has no velocity"):
        Painter(model("SGM"), "aboba", 4)
    assert set(SOLVERS) - set(FIXED) == {"rk45"}


def test_images_guided_towards_a_label() -> None:
    """Guidance 1 is the label's own image, another one is another image; it needs a model that knows both scores."""
    labels, seeds = torch.tensor([0, 1, 1]), [0, 1, 2]
    told = dataclasses.replace(model(conditional=True), context_dropout=0.1)
    plain = Painter(told, evaluations=4).floats(seeds, labels)
    assert torch.equal(Painter(told, evaluations=4, guidance=1.0).floats(seeds, labels), plain)
    assert not torch.allclose(Painter(told, evaluations=4, guidance=3.0).floats(seeds, labels), plain, atol=1e-3)
    with pytest.raises(ValueError, match=r"^guidance=3: must be 1 for a model that was fitted without context_dropout"):
        Painter(model(conditional=True), evaluations=4, guidance=3.0)
    with pytest.raises(ValueError, match=r"^context: has 2 rows; must have n=3, or one for all"):
        Painter(told, evaluations=4)(seeds, labels[:2])
    assert torch.equal(
        Painter(told, evaluations=4)(seeds, labels[1:2]), Painter(told, evaluations=4)(seeds, labels[[1] * 3])
    )


def test_guidance_of_a_configuration() -> None:
    with pytest.raises(ValueError, match=r"^guidance=2: must be 1 where context_dropout is 0"):
        config(guidance=2.0)
    with pytest.raises(ValueError, match=r"^context_dropout=0.1: must be 0 without labels"):
        config(context_dropout=0.1)
