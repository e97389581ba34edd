"""What the data bring beside the points reaches the network, or is refused before training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.studies.mixer import Mixer
from vsmd import Adaptation, fit, forward_process, latent, load
from vsmd.networks import Backbone
from vsmd.networks.conditional import ConditionalMLP
from vsmd.networks.contexts import Conditioning
from vsmd.networks.mlp import MLP
from vsmd.networks.unet import UNet

FAST: dict[str, Any] = {"steps": 250, "batch_size": 128, "learning_rate": 1e-2, "ema": 0.97, "seed": 0}


def clusters(n: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three clusters of standard deviation .3 about (-2, 0), (0, 2), (2, 0), and their labels."""
    labels = torch.randint(3, (n,), generator=stream)
    centres = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    return centres[labels] + 0.3 * torch.randn(n, 2, generator=stream), labels


X, LABELS = clusters(600, torch.Generator().manual_seed(0))


def share(x: Tensor, label: int) -> float:
    """Share of points that lie nearest to that cluster."""
    centres = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    return float((torch.cdist(x, centres).argmin(1) == label).float().mean())


@pytest.mark.parametrize("data", [(X, LABELS), clusters, (X.double().numpy(), LABELS.int().numpy())])
def test_labels_reach_the_default_network(data: Any) -> None:
    model = fit(forward_process("CLD", (2,), beta=8.0), data, **FAST)
    assert isinstance(model.network, ConditionalMLP)
    assert model.network.conditioning == Conditioning(classes=3)
    for label in range(3):
        assert share(model.sample(200, steps=12, context=label), label) > 0.98
    with pytest.raises(ValueError, match=r"^context=None: the network takes labels"):
        model.sample(5)


def test_real_features_reach_the_default_network() -> None:
    """x given a year c is N((c - 2000)/10, .2^2): features come in units of their own."""
    stream = torch.Generator().manual_seed(0)
    years = 1980 + 40 * torch.rand(600, generator=stream)
    x = ((years - 2000) / 10)[:, None] + 0.2 * torch.randn(600, 1, generator=stream)
    model = fit(
        forward_process("VSULD", (1,), beta=8.0),
        (x, years),
        adaptation=Adaptation(rounds=2, paths=100, nodes=8),
        **FAST,
    )
    for year in (1985.0, 2015.0):
        drawn = model.sample(200, steps=12, context=year)
        assert float(drawn.mean()) == pytest.approx((year - 2000) / 10, abs=0.25)
        assert float(drawn.std()) < 0.5
    near = model.log_prob(torch.tensor([[1.5], [-1.5]]), context=2015.0)
    assert float(near[0] - near[1]) > 10


def test_dropped_contexts_give_both_models_in_one(tmp_path: Any) -> None:
    """With a context, without one, and guided; after a file, too."""
    model = fit(forward_process("CLD", (2,), beta=8.0), (X, LABELS), context_dropout=0.3, **FAST)
    assert share(model.sample(200, steps=12, context=1), 1) > 0.9
    free = model.sample(400, steps=12)
    assert all(0.2 < share(free, label) < 0.5 for label in range(3))
    guided = model.sample(300, steps=12, context=1, guidance=2.0)
    assert share(guided, 1) > 0.99
    again = load(model.save(tmp_path / "model.safetensors"))
    assert again.context_dropout == 0.3
    assert torch.equal(again.sample(300, steps=12, context=1, guidance=2.0), guided)
    assert "told labels (n,), integers from 0 to 2, left out of 30%" in repr(again)


def test_dropping_is_a_function_of_the_step_and_moves_nothing_else() -> None:
    """Batches and noise are those without dropping; the share that is dropped is the one asked for."""

    class Telling(ConditionalMLP):
        seen: list[tuple[Tensor, Tensor]]

        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
            if self.training and context is not None:
                Telling.seen.append((z.clone(), context.clone()))
            return super().forward(z, log_snr, context)

    runs = []
    for dropout in (0.0, 0.25, 0.25):
        Telling.seen = []
        torch.manual_seed(0)
        network = Telling((2,), classes=3, width=8)
        fit(
            forward_process("CLD", (2,)), (X, LABELS), network=network, steps=8, batch_size=200, context_dropout=dropout
        )
        runs.append(Telling.seen)
    for (z, context), (same, dropped), (_, again) in zip(*runs):
        assert torch.equal(z, same)
        assert torch.equal(dropped, again)
        assert torch.equal(context[dropped >= 0], dropped[dropped >= 0])
    assert float(torch.cat([c for _, c in runs[1]]).eq(-1).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_images_and_their_labels() -> None:
    """The U-Net's labels are dropped, guided and checked like those of points."""
    images = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = UNet((1, 4, 4), width=8, multipliers=(1,), depth=1, attention=(), classes=2)
    data = (images, torch.arange(40) % 2)
    model = fit(forward_process("CLD", (1, 4, 4)), data, network=network, steps=3, batch_size=8, context_dropout=0.5)
    assert model.sample(3, steps=2, context=1, guidance=2.0).shape == (3, 1, 4, 4)
    assert model.sample(2, steps=2).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^context: labels from 2 to 2; must be labels \(n,\), integers from 0 to 1$"):
        model.sample(3, context=2)
    plain = UNet((1, 4, 4), width=8, multipliers=(1,), depth=1, attention=())
    with pytest.raises(ValueError, match=r"^network=UNet: ignores the context of the data; must take it"):
        fit(forward_process("CLD", (1, 4, 4)), data, network=plain, steps=3)


class Own(nn.Module):
    """A network of a user's own that looks at its context."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return self.linear(torch.cat([z, context], 1))


LOGGED = torch.zeros(600, 1)
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (
        (X, LABELS),
        MLP((2,)),
        {},
        r"^network=MLP: ignores the context of the data; must take it, as ConditionalMLP does$",
    ),
    ((X, LABELS), Mixer((2,)), {}, r"^network=Mixer: ignores the context"),
    ((X, LABELS), ConditionalMLP((2,)), {}, r"^network=ConditionalMLP: ignores the context"),
    (clusters, MLP((2,)), {}, r"^network=MLP: ignores the context"),
    (X, ConditionalMLP((2,), classes=3), {}, r"^network=ConditionalMLP: takes labels .* of which the data have none"),
    ((X, LABELS), ConditionalMLP((2,), classes=2), {}, r"^context: labels from 0 to 2; must be .* from 0 to 1$"),
    (
        (X, LABELS),
        ConditionalMLP((2,), features=1),
        {},
        r"^context: torch.int64 \(600,\); must be real numbers \(n, 1\)",
    ),
    ((X, LABELS[:9]), None, {}, r"^context: has 9 rows, must have one for each of the 600 points$"),
    ((X, LABELS[:, None]), None, {}, r"^context: torch.int64 \(600, 1\), 0 to 2; must be labels \(n,\)"),
    ((X, LABELS - 1), None, {}, r"^context: torch.int64 \(600,\), -1 to 1; must be labels"),
    ((X, LABELS * 10**9), None, {}, r"^context: .* 0 to 2e\+09; must be labels"),
    ((X, torch.full((600, 2), math.nan)), None, {}, r"^context: must be finite, 600 of 600 rows have NaN or inf$"),
    ((X, np.array(["a"] * 600)), None, {}, r"^context: array of <U1; must hold numbers$"),
    (X, None, {"context_dropout": 0.1}, r"^context_dropout=0.1: must be 0 for a network without"),
    ((X, LOGGED), Own(), {"context_dropout": 0.1}, r"^context_dropout=0.1: must be 0 for a network without"),
    ((X, LABELS), None, {"context_dropout": 1.0}, r"^context_dropout=1.0: must be a number between 0 and 0.99$"),
]


@pytest.mark.parametrize(("data", "network", "options", "message"), REFUSED)
def test_refused_before_training(data: Any, network: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as error:
        fit(forward_process("CLD", (2,)), data, network=network, steps=10**9, **options)
    assert "\n" not in str(error.value)


def test_a_backbone_of_others_that_ignores_labels() -> None:
    backbone = Backbone(nn.Conv2d(1, 1, 1), lambda module, image, level, context: module(image))
    with pytest.raises(ValueError, match=r"^network=Backbone: ignores the context"):
        fit(
            forward_process("CLD", (1, 2, 2)), (torch.randn(9, 1, 2, 2), torch.arange(9)), network=backbone, steps=10**9
        )


def test_networks_of_one_s_own_are_trusted() -> None:
    model = fit(forward_process("CLD", (2,)), (X, LOGGED), network=Own(), steps=2, batch_size=8)
    assert model.sample(3, steps=2, context=torch.ones(1, 1)).shape == (3, 2)


class Halves:
    """A codec of pairs of equal halves."""

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :2]

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([z, z], 1)


@pytest.mark.parametrize("drawn", [False, True])
def test_labels_in_latent_space(drawn: bool) -> None:
    def twice(n: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        x, labels = clusters(n, stream)
        return torch.cat([x, x], 1), labels

    data: Any = twice if drawn else (torch.cat([X, X], 1), LABELS)
    process = forward_process("CLD", (2,), beta=8.0)
    model = latent.fit(data, autoencoder=Halves(), bridge=process, context_dropout=0.1, **FAST)
    assert share(model.sample(200, steps=12, context=2)[:, 2:], 2) > 0.95
    assert share(model.sample(200, steps=12, context=2, guidance=2.0)[:, 2:], 2) > 0.98
