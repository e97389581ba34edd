"""Autoencoders: shapes, pre-training that reconstructs and resumes bit for bit, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.studies.sets.manifolds import manifold
from vsmd import files
from vsmd.latent import DiffusersAutoencoder, ImageAutoencoder, VectorAutoencoder, fit, load, pretrain
from vsmd.latent.autoencoder import check_fit
from vsmd.random import generator


def line(n: int, stream: torch.Generator) -> Tensor:
    """Points of a line in R^6, far from the origin."""
    direction = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 1.0])
    return 10 + 4 * torch.randn(n, 1, generator=stream) * direction


def test_shapes() -> None:
    vector, image = VectorAutoencoder((5, 2), 3, width=8), ImageAutoencoder((2, 8, 12), 7, width=4)
    assert check_fit(vector, torch.randn(4, 5, 2)) == (3,)
    assert check_fit(image, torch.randn(4, 2, 8, 12)) == (7,)


def test_pretraining_reconstructs() -> None:
    model = pretrain(VectorAutoencoder((6,), 1, width=16), line, steps=300, batch_size=64, seed=0)
    x = line(500, generator(1, "new"))
    error = (model.decode(model.encode(x)) - x).square().sum(1).mean().sqrt()
    assert error < 0.05 * (x - x.mean(0)).square().sum(1).mean().sqrt()
    assert not any(p.requires_grad for p in model.parameters())


def bars(n: int, stream: torch.Generator) -> Tensor:
    """Images (1, 8, 8) of one white bar, level or upright, on black at 3, white at 7."""
    x = torch.full((n, 1, 8, 8), 3.0)
    upright, at = torch.randint(2, (n,), generator=stream), torch.randint(8, (n,), generator=stream)
    for image, turn, place in zip(x, upright.tolist(), at.tolist(), strict=True):
        image[0].T[place] = 7.0 if turn else image[0].T[place]
        image[0][place] = image[0][place] if turn else 7.0
    return x


def test_images_keep_black_black_and_white_white() -> None:
    model = pretrain(ImageAutoencoder((1, 8, 8), 4, width=8), bars, steps=600, batch_size=64, seed=0)
    x = bars(200, generator(1, "new"))
    back = model.decode(model.encode(x))
    assert 3 <= back.min() < back.max() <= 7  # the data's own range, also where an output is extreme
    assert (back - x).abs().mean() < 0.05 * (x - x.mean(0)).abs().mean()
    far = model.decode(1e4 * model.encode(x))
    assert 3 <= far.min() < far.max() <= 7


def test_the_mean_is_the_optimum_of_the_image_loss() -> None:
    model = ImageAutoencoder((1, 8, 8), 4, width=8)
    model.fit_scale(bars(100, generator(0, "bars")))
    z, last = torch.randn(5, 4), model.decoder.get_parameter("12.bias")
    mean = model.decode(z).detach()
    pair = torch.cat([mean - 0.5, mean + 0.5])
    assert torch.autograd.grad(model.loss(torch.cat([z, z]), pair), last)[0].abs().max() < 1e-6
    assert torch.autograd.grad(model.loss(z, mean + 0.5), last)[0].abs().min() > 1e-3


def test_pretraining_is_a_function_of_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        start = VectorAutoencoder((6,), 1, width=8)
        return pretrain(start, line, steps=3, batch_size=8, seed=seed).encoder_line.weight

    torch.manual_seed(5)
    one = weights(0)
    assert torch.equal(one, weights(0))
    assert not torch.equal(one, weights(1))


def test_pretraining_resumes_bit_for_bit(tmp_path: Path) -> None:
    data, start = manifold(2, 16), VectorAutoencoder((16,), 2, width=8)
    settings: dict[str, Any] = {"steps": 60, "batch_size": 16, "code_noise": 0.1}
    whole = pretrain(start, data, **settings)
    path = tmp_path / "pretraining.safetensors"

    class Stop(Exception):
        pass

    calls = 0

    def failing(n: int, stream: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 58:  # the draw that measures the scale, and 56 steps
            raise Stop
        return data(n, stream)

    with pytest.raises(Stop):
        pretrain(start, failing, checkpoint=path, checkpoint_every=50, **settings)
    again = pretrain(start, data, checkpoint=path, checkpoint_every=50, **settings)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"^checkpoint=.*other settings \(code_noise: 0.1 -> 0.2\)"):
        pretrain(start, data, checkpoint=path, **settings | {"code_noise": 0.2})
    with pytest.raises(ValueError, match=r"^checkpoint=.*other settings \(data: '"):
        pretrain(start, lambda n, s: data(n, s) * (1 + 2 * (torch.arange(16) > 7)), checkpoint=path, **settings)
    for step in (-1, 61):
        tensors, info = files.read(path, "vsmd-pretraining-1")
        files.write(tmp_path / "other.safetensors", "vsmd-pretraining-1", tensors, info | {"step": step})
        with pytest.raises(ValueError, match=rf"^path=.*other.safetensors'.*\(step={step}: must be"):
            pretrain(start, data, checkpoint=tmp_path / "other.safetensors", **settings)


def test_diffusers_interface() -> None:
    """A stand-in with the interface of AutoencoderKL: encode(x).latent_dist.mean, decode(z).sample, scaling_factor."""

    class Stand(nn.Module):
        config = SimpleNamespace(scaling_factor=0.18215)

        def encode(self, x: Tensor) -> SimpleNamespace:
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=nn.functional.avg_pool2d(x, 2)))

        def decode(self, z: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=z.repeat_interleave(2, 2).repeat_interleave(2, 3))

    codec, x = DiffusersAutoencoder(Stand()), torch.full((3, 3, 8, 8), 0.5)
    assert check_fit(codec, x) == (3, 4, 4)
    torch.testing.assert_close(codec.encode(x), torch.full((3, 3, 4, 4), 0.5 * 0.18215))
    torch.testing.assert_close(codec.decode(codec.encode(x)), x)


def test_no_such_diffusers_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^autoencoder='.*none': must be a folder written by diffusers$"):
        DiffusersAutoencoder(tmp_path / "none")


class Pair:
    """An encoder and a decoder put together by hand."""

    def __init__(self, encode: Any, decode: Any) -> None:
        self.encode, self.decode = encode, decode


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Pair(nn.Linear(6, 3), nn.Linear(4, 6)), r"^autoencoder: decoder does not take the encoder's codes, shape"),
        (Pair(nn.Linear(6, 3), nn.Linear(3, 5)), r"^autoencoder: encoder and decoder do not fit: codes \(5, 3\)"),
        (Pair(nn.Linear(7, 3), nn.Linear(3, 7)), r"^autoencoder: encoder does not take the data, shape \(5, 6\)"),
        (Pair(nn.Linear(6, 9), nn.Linear(9, 6)), r"^latent=9: must be at most 6, the ambient dimension$"),
        (Pair(lambda x: x.sum(), lambda z: z), r"^autoencoder: encodes \(5, 6\) to \(\); must be a tensor \(5, \*code"),
        (Pair(lambda x: x / 0, lambda z: z), r"^autoencoder: codes have NaN or inf; must be finite$"),
        (Pair(lambda x: [x], lambda z: z), r"^autoencoder: encodes \(5, 6\) to list"),
    ],
)
def test_what_does_not_fit(codec: Pair, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_fit(codec, torch.randn(5, 6))
    assert "\n" not in str(error.value)


def test_no_autoencoder() -> None:
    with pytest.raises(TypeError, match=r"^autoencoder=Linear: must have encode and decode$"):
        check_fit(nn.Linear(3, 3), torch.randn(5, 3))  # type: ignore[arg-type]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"^latent=17: must be at most 16, the ambient dimension$"):
        VectorAutoencoder((16,), 17)
    with pytest.raises(ValueError, match=r"^shape=\(1, 7, 8\): must be .* with sides that 4 divides$"):
        ImageAutoencoder((1, 7, 8), 4)
    with pytest.raises(ValueError, match=r"^steps=0: must be an integer >= 1$"):
        pretrain(VectorAutoencoder((6,), 1), line, steps=0)
    with pytest.raises(ValueError, match=r"^code_noise=-1: must be a number between 0 and 10$"):
        pretrain(VectorAutoencoder((6,), 1), line, code_noise=-1)
    with pytest.raises(ValueError, match=r"^data: shape \(9, 3\) must be \(n, 6\)"):
        pretrain(VectorAutoencoder((6,), 1), torch.randn(9, 3))


@pytest.mark.parametrize("kind", ["far", "scales"])
def test_every_coordinate_of_a_vector_counts(kind: str, tmp_path: Path) -> None:
    """Small beside the mean, which float32 has no digits for, or beside other columns."""
    x = torch.randn(500, 3, generator=generator(0, kind), dtype=torch.float64)
    x = 1e6 + 0.01 * x if kind == "far" else x * torch.tensor([1e-3, 1.0, 1e3])
    data = x if kind == "far" else x.float()
    model = pretrain(VectorAutoencoder((3,), 3, width=8), data, steps=250, batch_size=64, learning_rate=1e-2)
    back = model.decode(model.encode(data))
    assert bool(((back - x).std(0) < 0.3 * x.std(0)).all())
    assert back.dtype == (torch.float64 if kind == "far" else torch.float32)
    latent = fit(data, autoencoder=model, bridge="CLD", steps=2, batch_size=8)
    samples = latent.sample(50, steps=3)
    assert bool((samples.std(0) > 0.01 * x.std(0)).all())
    again = load(latent.save(tmp_path / "latent.safetensors"))
    assert torch.equal(again.sample(50, steps=3), samples)
    assert torch.equal(again.encode(data[:9]), latent.encode(data[:9]))


def test_one_scale_for_all() -> None:
    """As images have it, and vectors that ask for it, in float32 throughout."""
    x = line(400, generator(0, "scale"))
    model = pretrain(VectorAutoencoder((6,), 1, width=8), x, steps=1, units="scaled")
    assert torch.equal(model.centre, x.mean(0))
    assert torch.equal(model.scale, (x - x.mean(0)).square().mean().sqrt())
    far = pretrain(ImageAutoencoder((1, 8, 8), 4, width=4), bars(50, generator(0, "far")).double() + 1e7, steps=2)
    back = far.decode(far.encode(bars(9, generator(1, "far")).double() + 1e7)) - 1e7
    assert 3 <= back.min() < back.max() <= 7
    with pytest.raises(ValueError, match=r"^units='raw': must be one of 'standardised', 'scaled'"):
        pretrain(VectorAutoencoder((6,), 1), x, units="raw")


def test_a_checkpoint_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    def untouched(n: int, stream: torch.Generator) -> Tensor:
        pytest.fail("data are drawn")

    with pytest.raises(OSError, match=r"^checkpoint='.*c': could not be written"):
        pretrain(VectorAutoencoder((6,), 1), untouched, checkpoint=tmp_path / "file" / "c")
