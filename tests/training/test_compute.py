"""vsmd.training.compute: precision, layout and accumulation change a run by rounding, and resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import Adaptation, Model, fit, forward_process, load
from vsmd.training import Compute


class Convolutions(nn.Module):
    """Two layers on an image and its level."""

    backbone = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        level = level.view(-1, 1, 1, 1).expand_as(image)
        return self.last(silu(self.first(torch.cat([image, level / 4], 1))))


DATA = torch.randn(60, 2, 4, 4, generator=torch.Generator().manual_seed(0)).cumsum(3)


def train(compute: Compute | None = None, **arguments: Any) -> Model:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"steps": 20, "batch_size": 12, "adaptation": Adaptation(rounds=3, paths=20, nodes=4)}
    process = forward_process("VSULD", (2, 4, 4))
    return fit(process, DATA, network=Convolutions(), compute=compute, **settings | arguments)


def weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return weights(train())


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_accumulation_equals_the_whole_batch(plain: Tensor, parts: int) -> None:
    torch.testing.assert_close(weights(train(Compute(accumulate=parts))), plain, rtol=0, atol=1e-5)


def test_channels_last(plain: Tensor) -> None:
    model = train(Compute(channels_last=True))
    assert next(model.network.parameters()).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights(model), plain, rtol=0, atol=1e-5)


def test_bfloat16(plain: Tensor) -> None:
    """Near the float32 run, not equal to it; the weights stay float32."""
    found = weights(train(Compute(precision="bfloat16")))
    assert found.dtype == torch.float32
    assert 0 < float((found - plain).norm()) < 0.2 * float(plain.norm())


@pytest.mark.parametrize("compute", [Compute("bfloat16", channels_last=True, accumulate=2), Compute(accumulate=3)])
def test_resume_is_bit_exact(compute: Compute, tmp_path: Path) -> None:
    """Moments of weights in another layout go back into that layout."""
    path, seen = tmp_path / "run.safetensors", []

    def interrupt(step: int, model: Model) -> None:
        seen.append(step)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        train(compute, checkpoint=path, checkpoint_every=5, snapshots=[11], on_snapshot=interrupt)
    assert seen == [11]
    assert torch.equal(weights(train(compute, checkpoint=path)), weights(train(compute)))


class Compiled(nn.Module):
    """Stands for a compiled network; counts its calls."""

    calls = 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor | None) -> Tensor:
        Compiled.calls += 1
        return self.network(*inputs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_calls_the_compiled_network(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else does: models and checkpoints know the network itself."""
    monkeypatch.setattr(torch, "compile", Compiled)
    before = Compiled.calls
    model = train(Compute(precision, compile=True))
    assert Compiled.calls == before + 20
    assert isinstance(model.network, Convolutions)
    assert torch.equal(weights(model), weights(train(Compute(precision))))


def test_precision_is_a_setting_of_the_run(tmp_path: Path) -> None:
    """Layout and accumulation may change on resume, precision may not."""
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    train(Compute(accumulate=2, channels_last=True), checkpoint=path)
    with pytest.raises(ValueError, match=r"\(precision: None -> 'bfloat16'\)$"):
        train(Compute("bfloat16"), checkpoint=path)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match=r"^precision='bf16': must be one of 'float32', 'bfloat16'"):
        Compute("bf16")
    with pytest.raises(ValueError, match=r"^accumulate=0: must be an integer >= 1$"):
        Compute(accumulate=0)


def test_models_in_another_layout_are_saved(tmp_path: Path) -> None:
    from vsmd.networks.mlp import MLP

    process = forward_process("CLD", (2, 4, 4))
    network = MLP((2, 4, 4), width=8, depth=2, frequencies=2)
    model = fit(process, DATA, network=network, steps=3, batch_size=4, compute=Compute(channels_last=True))
    assert torch.equal(weights(load(model.save(tmp_path / "model.safetensors"))), weights(model))
