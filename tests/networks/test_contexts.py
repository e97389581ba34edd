"""Guidance is the difference of exact scores; what is left out has no code; contexts are checked in one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from mixtures1d import MEANS, STD, VAR, VARIANCES, WEIGHTS, Posterior, at, process_for
from torch import Tensor, nn

from vsmd import Model, forward_process, load
from vsmd.networks.conditional import ConditionalMLP
from vsmd.networks.contexts import Conditioning, Guided
from vsmd.networks.unet import UNet
from vsmd.scores import Score


class TwoClasses(nn.Module):
    """The exact network of the two components by their labels, and of the mixture where the label is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conditioning = Conditioning(classes=2)
        laws = ([0], [1], [0, 1])
        self.laws = [Posterior(WEIGHTS[i], MEANS[i] / STD, VARIANCES[i] / VAR) for i in laws]

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        values = torch.stack([law(z, log_snr) for law in self.laws])
        return values[context % 3, torch.arange(len(z))]  # -1 is the last


def exact_score(process: Any, a: Tensor, t: float, parts: list[int]) -> Tensor:
    """d log p_t(a) / d(last component) of the chosen components, by differentiation of Gaussian densities."""
    kernel = process.kernel(torch.tensor([t], dtype=torch.float64))
    mean = torch.stack([torch.stack([e.flatten()[0] for e in row]) for row in kernel.mean])
    noise = torch.stack([torch.stack([e.flatten()[0] for e in row]) for row in kernel.noise])
    a = a[..., 0].clone().requires_grad_()
    laws = []
    for i in parts:
        start = torch.diag(torch.stack([VARIANCES[i], torch.ones_like(VARIANCES[i])][: process.k]))
        law = torch.distributions.MultivariateNormal(mean[:, 0] * MEANS[i], mean @ start @ mean.T + noise)
        laws.append(law.log_prob(a) + WEIGHTS[i].log())
    (gradient,) = torch.autograd.grad(torch.stack(laws).logsumexp(0).sum(), a)
    return gradient[:, -1:]


@pytest.mark.parametrize("method", ["SGM", "VSULD"])
@pytest.mark.parametrize("t", [0.05, 0.4])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guided_scores_are_exact(method: str, t: float, guidance: float) -> None:
    """s_0 + w (s_c - s_0) with the exact scores of the mixture, s_0, and of each class, s_c."""
    process, network = process_for(method), TwoClasses()
    a = torch.randn(60, process.k, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(60) % 2
    score = Score(process, Guided(network, network.conditioning, guidance))(a, at(process, t), labels)
    plain = exact_score(process, a, t, [0, 1])
    told = torch.where(labels[:, None] == 0, exact_score(process, a, t, [0]), exact_score(process, a, t, [1]))
    torch.testing.assert_close(score, plain + guidance * (told - plain), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["exponential", "heun", "euler-maruyama"])
def test_guidance_one_is_the_plain_score_and_zero_no_context(solver: str) -> None:
    model = Model(process_for("VSULD"), TwoClasses(), context_dropout=0.1)
    plain = model.sample(40, solver, 6, context=1)
    assert torch.equal(model.sample(40, solver, 6, context=1, guidance=1), plain)
    assert torch.equal(model.sample(40, solver, 6, context=1, guidance=0), model.sample(40, solver, 6))
    assert float(model.sample(40, solver, 6, context=1, guidance=4).mean()) != float(plain.mean())


def conditional(**options: Any) -> ConditionalMLP:
    torch.manual_seed(0)
    network = ConditionalMLP((2,), width=8, depth=2, frequencies=4, **options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize("options", [{"classes": 3}, {"features": 2}, {"features": 1, "units": [[5.0], [2.0]]}])
def test_what_is_left_out_has_no_code(options: dict[str, Any]) -> None:
    """Row by row; the network then is the perceptron alone. Settings make the same network again."""
    network = conditional(**options)
    takes = network.conditioning
    assert takes is not None
    context = torch.tensor([0, 2, 1]) if takes.classes else torch.randn(3, takes.features)
    codes = network.encode(takes.without(context, torch.tensor([False, True, False])))
    assert codes is not None
    assert codes[1].abs().max() == 0
    assert torch.equal(codes[[0, 2]], network.encode(context[[0, 2]]))  # type: ignore[arg-type]
    z, level = torch.randn(3, 2), torch.zeros(1, 2)
    assert torch.equal(network(z, level, takes.none(3, torch.device("cpu"))), network.perceptron(z, level))
    again = ConditionalMLP(**network.settings)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(z, level, context), network(z, level, context))


def test_features_are_taken_in_their_units() -> None:
    one, two = conditional(features=1, units=[[2000.0], [100.0]]), conditional(features=1)
    z, level, year = torch.randn(4, 2), torch.zeros(1, 2), torch.tensor([[1900.0], [2000], [2010], [2100]])
    assert torch.equal(one(z, level, year), two(z, level, (year - 2000) / 100))


def test_features_and_labels_at_once() -> None:
    with pytest.raises(ValueError, match=r"^features=2, classes=3: must be one of them"):
        ConditionalMLP((2,), features=2, classes=3)


def test_a_missing_value_is_not_left_out() -> None:
    assert not bool(torch.isfinite(conditional(features=1).encode(torch.tensor([[math.nan]]))).any())  # type: ignore[arg-type]


def test_labels_of_images_may_be_left_out() -> None:
    torch.manual_seed(0)
    network = UNet((1, 4, 4), width=8, multipliers=(1,), depth=1, attention=(), classes=3).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    image, level = torch.randn(3, 2, 4, 4), torch.zeros(3)
    some, all_of_them = (network(image, level, torch.tensor(labels)) for labels in ([0, -1, 2], [0, 1, 2]))
    assert torch.equal(some[[0, 2]], all_of_them[[0, 2]])
    assert not torch.allclose(some[1], all_of_them[1], atol=1e-3)
    network.label = None
    assert torch.allclose(some[1], network(image, level)[1], atol=1e-6)


# --- the door of sample and log_prob ----------------------------------------------------------------------------------

KNOWN = forward_process("CLD", (2,)).with_moments(torch.zeros(2), torch.ones(2))
LABELS, REAL = Model(KNOWN, conditional(classes=3)), Model(KNOWN, conditional(features=2))
BAD: list[tuple[Model, Any, str]] = [
    (LABELS, None, r"^context=None: the network takes labels \(n,\), integers from 0 to 2; must be given$"),
    (LABELS, torch.zeros(3, dtype=torch.long), r"^context: has 3 rows; must have n=5, or one for all$"),
    (LABELS, torch.zeros(10, dtype=torch.long), r"^context: has 10 rows; must have n=5"),
    (LABELS, torch.zeros(5), r"^context: torch.float32 \(5,\); must be labels"),
    (LABELS, torch.zeros(5, 1, dtype=torch.long), r"^context: torch.int64 \(5, 1\); must be labels"),
    (LABELS, torch.tensor([0, 1, 2, 3, 0]), r"^context: labels from 0 to 3; must be labels .* from 0 to 2$"),
    (LABELS, -1, r"^context: labels from -1 to -1; must be"),
    (LABELS, 0.5, r"^context: torch.float32 \(1,\); must be labels"),
    (LABELS, "two", r"^context=str: must be a tensor"),
    (REAL, None, r"^context=None: the network takes real numbers \(n, 2\), floating; must be given$"),
    (REAL, torch.zeros(3, 2), r"^context: has 3 rows; must have n=5"),
    (REAL, torch.zeros(5, 3), r"^context: torch.float32 \(5, 3\); must be real numbers \(n, 2\), floating$"),
    (REAL, torch.zeros(5, 2, dtype=torch.long), r"^context: torch.int64 \(5, 2\); must be real numbers"),
    (REAL, torch.full((5, 2), math.nan), r"^context: must be finite, 5 of 5 rows have NaN or inf$"),
    (Model(KNOWN, nn.Identity()), torch.zeros(7), r"^context: has 7 rows"),
]


@pytest.mark.parametrize(("model", "context", "message"), BAD)
def test_bad_contexts(model: Model, context: Any, message: str) -> None:
    for call in (lambda: model.sample(5, context=context), lambda: model.log_prob(torch.zeros(5, 2), context=context)):
        with pytest.raises((ValueError, TypeError), match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_context_that_the_network_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"^context: the model's network, ConditionalMLP, takes none; leave it out$"):
        Model(KNOWN, conditional()).sample(5, context=torch.zeros(5, 1))


@pytest.mark.parametrize(
    ("model", "one", "rows"),
    [
        (LABELS, 2, torch.full((6,), 2)),
        (LABELS, torch.tensor([2]), torch.full((6,), 2, dtype=torch.int32).numpy()),
        (REAL, torch.tensor([0.5, -1.0]), torch.tensor([[0.5, -1.0]]).expand(6, 2)),
        (REAL, torch.tensor([[0.5, -1.0]]).numpy(), torch.tensor([[0.5, -1.0]], dtype=torch.float64).expand(6, 2)),
        (Model(KNOWN, conditional(features=1)), 0.5, torch.full((6,), 0.5)),
        (Model(KNOWN, conditional(features=1)), np.float32(0.5), torch.full((6,), 0.5)),
        (LABELS, np.int64(2), torch.full((6,), 2)),
    ],
)
def test_one_context_for_all_samples(model: Model, one: Any, rows: Any) -> None:
    assert torch.equal(model.sample(6, steps=3, context=one), model.sample(6, steps=3, context=rows))
    x = torch.randn(6, 2)
    assert torch.equal(model.log_prob(x, context=one), model.log_prob(x, context=rows))


def test_guidance_needs_dropped_contexts_and_a_context(tmp_path: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^guidance=2: must be 1 for a model that was fitted without context_dropout$"
    ):
        LABELS.sample(5, context=1, guidance=2)
    model = Model(KNOWN, conditional(classes=3), context_dropout=0.2)
    with pytest.raises(ValueError, match=r"^guidance=2: leads towards a context; must come with one$"):
        model.sample(5, guidance=2)
    with pytest.raises(ValueError, match=r"^guidance=-1: must be a number between 0 and 100$"):
        model.sample(5, context=1, guidance=-1)
    again = load(model.save(tmp_path / "model.safetensors"))
    assert torch.equal(again.sample(5, context=1, guidance=2), model.sample(5, context=1, guidance=2))
    assert torch.equal(again.sample(5), model.sample(5))
