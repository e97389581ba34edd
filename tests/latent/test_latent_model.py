"""The face of a latent model: any bridge, samples of the right law, files, and one line for what is wrong."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vsmd import Adaptation, files, forward_process, latent
from vsmd.diagnostics import StartWarning
from vsmd.latent.model import FORMAT
from vsmd.methods import METHODS
from vsmd.model import Model
from vsmd.networks.mlp import MLP
from vsmd.random import generator

BASIS = torch.linalg.qr(torch.randn(6, 6, generator=generator(0, "basis"), dtype=torch.float64))[0].float()


class Rotated:
    """A codec that is exact for data in a plane of R^6: codes are stretched by 100."""

    def __init__(self, dim: int = 2) -> None:
        self.basis = BASIS[:, :dim]

    def encode(self, x: Tensor) -> Tensor:
        return 100 * x @ self.basis

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.basis.T / 100


def plane(n: int, stream: torch.Generator) -> Tensor:
    """Gaussian in a plane, standard deviations 3 and 1, correlation .5, about a point of the plane."""
    u = torch.randn(n, 2, generator=stream) @ torch.tensor([[3.0, 0.5], [0.0, 0.75**0.5]])
    return (u + torch.tensor([5.0, -1.0])) @ BASIS[:, :2].T


X = plane(4_000, generator(0, "x"))
FAST: dict[str, Any] = {"steps": 2, "batch_size": 16, "adaptation": Adaptation(rounds=1, paths=100, nodes=8)}


@pytest.fixture(autouse=True)
def strict() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", StartWarning)  # raw codes of unequal widths
        yield


@pytest.mark.parametrize("bridge", [*METHODS, "steered"])
def test_every_bridge_is_one_argument_away(bridge: str) -> None:
    """Two training steps: Gaussian codes are exact from the start, through the codes' scale of 100 and back."""
    process: Any = bridge
    if bridge == "steered":
        process = forward_process("VSCLD", (2,), beta=2.0, variational_score="steered", basis="principal")
    elif bridge not in ("LSBDM", "VSCLD", "VSULD"):
        process = forward_process(bridge, (2,), beta=10.0, prior="moments", basis="principal")
    model = latent.fit(X, autoencoder=Rotated(), bridge=process, learning_rate=1e-5, **FAST)
    x = model.sample(3_000, steps=20, seed=1)
    assert x.shape == (3_000, 6)
    assert x.dtype == torch.float32
    error = 5 * X.std(0) / 3_000**0.5
    assert ((x.mean(0) - X.mean(0)).abs() < error + 0.02 * X.std(0)).all()
    torch.testing.assert_close(torch.cov(x.T), torch.cov(X.T), atol=0.12 * float(X.var(0).max()), rtol=0)
    assert torch.equal(x, model.sample(3_000, steps=20, seed=1))


def test_codes_have_one_scale_and_keep_their_shape() -> None:
    model = latent.fit(X, autoencoder=Rotated(), bridge="CLD", **FAST)
    codes = model.encode(X)
    assert codes.var(0, correction=0).mean().sqrt().item() == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(model.decode(codes), X, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.reconstruct(X[:5]), X[:5], atol=1e-4, rtol=0)
    var = model.process.known().var
    assert float(var.max() / var.min()) > 5


def test_a_sampler_is_encoded_as_it_is_drawn() -> None:
    model = latent.fit(plane, autoencoder=Rotated(), bridge="VSULD", **FAST)
    assert model.process.known().var.sum() == pytest.approx(2.0, rel=0.05)
    assert model.shape == (6,)


def test_adapted_score_is_visible() -> None:
    model = latent.fit(X, autoencoder=Rotated(), bridge="VSULD", **FAST)
    stiffness = model.process.stiffness[0]
    assert [row["stiffness"] for row in model.bridge.history][-1] == [stiffness.tolist()]
    assert float((stiffness - 1).abs().min()) > 0.01


def test_interpolation_ends_at_the_points() -> None:
    model = latent.fit(X, autoencoder=Rotated(), **FAST)
    path = model.interpolate(X[:3], X[3:6], points=5)
    assert path.shape == (5, 3, 6)
    torch.testing.assert_close(path[0], X[:3], atol=1e-4, rtol=0)
    torch.testing.assert_close(path[2], (X[:3] + X[3:6]) / 2, atol=1e-4, rtol=0)


def test_starts() -> None:
    """Only the empirical start of the bridge keeps the training codes."""
    model = latent.fit(X[:200], autoencoder=Rotated(), **FAST)
    assert model.process.prior == "empirical"
    assert model.process.mixture is not None
    assert len(model.process.mixture.means) == 200
    other = model.with_prior("moments")
    assert other.process.mixture is None
    assert other.sample(5, steps=2).shape == (5, 6)
    again = other.with_prior("empirical", X[:50]).process.mixture
    assert again is not None
    torch.testing.assert_close(again.means, model.process.mixture.means[:50])


def test_stopping_time() -> None:
    model = latent.fit(X, autoencoder=Rotated(), stop=0.99, **FAST)
    assert model.with_stop(0.999).bridge.t_min < model.bridge.t_min
    for bad in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=r"^stop=.*: the early-stopping time must be in \(0, 1\)$"):
            latent.fit(X, autoencoder=Rotated(), stop=bad, **FAST)
    with pytest.raises(ValueError, match=r"^stop=0.9: CLD has no early-stopping time; LSBDM has$"):
        latent.fit(X, autoencoder=Rotated(), bridge="CLD", stop=0.9, **FAST)
    with pytest.raises(ValueError, match=r"^stop=0.9: CLD has no"):
        latent.fit(X, autoencoder=Rotated(), bridge="CLD", **FAST).with_stop(0.9)


def test_sigma_outside_the_theory_is_told() -> None:
    bridge = latent.schrodinger_bridge((2,), sigma=0.01)
    with pytest.warns(UserWarning, match=r"^sigma=0.01: too small"):
        latent.fit(X, autoencoder=Rotated(), bridge=bridge, **FAST)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", ["LSBDM", "VSULD"])
def test_save_and_load(bridge: str, tmp_path: Path) -> None:
    autoencoder = latent.pretrain(latent.VectorAutoencoder((6,), 2, width=8), plane, steps=5, batch_size=8)
    model = latent.fit(X[:300], autoencoder=autoencoder, bridge=bridge, **FAST)
    path = model.save(tmp_path / "deep" / "latent.safetensors")
    again = latent.load(path)
    assert torch.equal(model.sample(7, steps=3), again.sample(7, steps=3))
    assert torch.equal(model.encode(X[:5]), again.encode(X[:5]))
    assert again.bridge.t_min == model.bridge.t_min
    assert [p.name for p in path.parent.iterdir()] == ["latent.safetensors"]
    with pytest.raises(ValueError, match=r"^autoencoder=Rotated: the file holds its own; leave it out$"):
        latent.load(path, autoencoder=Rotated())


def test_an_autoencoder_from_elsewhere_is_given_again(tmp_path: Path) -> None:
    model = latent.fit(X, autoencoder=Rotated(), bridge="SGM", **FAST)
    path = model.save(tmp_path / "latent.safetensors")
    assert torch.equal(latent.load(path, autoencoder=Rotated()).sample(4, steps=2), model.sample(4, steps=2))
    with pytest.raises(ValueError, match=r"^autoencoder=NoneType: the file holds no Rotated; it must be given$"):
        latent.load(path)


def test_damaged_files(tmp_path: Path) -> None:
    model = latent.fit(X, autoencoder=Rotated(), bridge="SGM", **FAST)
    path = model.save(tmp_path / "latent.safetensors")
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:-3] + b"abc"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"^path={re.escape(repr(str(path)))}: is damaged or foreign") as error:
            latent.load(path, autoencoder=Rotated())
        assert "\n" not in str(error.value)
    model.bridge.save(path)
    with pytest.raises(ValueError, match="must be a 'vsmd-latent-1' file"):
        latent.load(path)


# --- bad input --------------------------------------------------------------------------------------------------------


class Dead(Rotated):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) * torch.tensor([1.0, 0.0, 1.0])


def test_codes_without_variance() -> None:
    with pytest.raises(ValueError, match=r"^autoencoder: codes have zero variance in 1 of 3 coordinates \(\[1\]\);"):
        latent.fit(torch.randn(50, 6), autoencoder=Dead(3), **FAST)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bridge": "LSBM"}, ValueError, r"^bridge='LSBM': must be one of .*did you mean 'LSBDM'"),
        ({"bridge": forward_process("CLD", (3,))}, ValueError, r"^bridge: is for codes of shape \(3,\); must be"),
        ({"data": X[:1]}, ValueError, r"^data: shape \(1, 6\) must be \(n, 6\) with n >= 2"),
        ({"data": X.long()}, TypeError, r"^data: dtype torch.int64 must be a floating one"),
        ({"data": X.clone().fill_(float("nan"))}, ValueError, r"^data: must be finite"),
        ({"data": (X, X[:9])}, ValueError, r"^context: has 9 rows, must have one for each of the 4000 points"),
        ({"data": "x"}, TypeError, r"^data=str: must be a tensor"),
        ({"autoencoder": torch.nn.Linear(6, 2)}, TypeError, r"^autoencoder=Linear: must have encode and decode$"),
        ({"steps": 0}, ValueError, r"^steps=0: must be an integer >= 1$"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    options = {"data": X, "autoencoder": Rotated(), **FAST} | arguments
    with pytest.raises(error, match=message):
        latent.fit(options.pop("data"), **options)


def test_devices_and_the_look_of_it() -> None:
    """Pre-trained and moved elsewhere ("meta" is on every machine); shown in a few lines."""
    codec = latent.pretrain(latent.VectorAutoencoder((6,), 2, 8), X, steps=2, batch_size=8, device="cpu")
    model = latent.fit(X, autoencoder=codec, bridge="CLD", **FAST)
    there = model.to("meta")
    assert next(there.autoencoder.parameters()).device.type == "meta"  # type: ignore[attr-defined]
    assert next(codec.parameters()).device.type == "cpu"
    text = repr(model)
    assert text.startswith("LatentModel of data (6,): VectorAutoencoder, codes by a\nModel of data (2,): CLD, beta ")
    assert len(text) < 400
    with pytest.raises(ValueError, match=r"^device='cuda:99': not on this machine"):
        latent.pretrain(latent.VectorAutoencoder((6,), 2, 8), X, steps=2, device="cuda:99")


def test_pretraining_goes_on(tmp_path: Path) -> None:
    """More steps from the same checkpoint."""
    path = tmp_path / "codec.safetensors"
    options: dict[str, Any] = {"batch_size": 8, "checkpoint": path, "checkpoint_every": 2}
    short = latent.pretrain(latent.VectorAutoencoder((6,), 2, 8), X, steps=2, **options)
    longer = latent.pretrain(latent.VectorAutoencoder((6,), 2, 8), X, steps=4, **options)
    assert not torch.equal(longer.encode(X[:3]), short.encode(X[:3]))
    with pytest.raises(ValueError, match=r"steps: 4 -> 3"):
        latent.pretrain(latent.VectorAutoencoder((6,), 2, 8), X, steps=3, **options)


def test_bad_points() -> None:
    model = latent.fit(X, autoencoder=Rotated(), bridge="SGM", **FAST)
    with pytest.raises(ValueError, match=r"^x=\(2, 5\): must be a tensor of shape \(n, 6\), n >= 1$"):
        model.encode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"^x: must be finite"):
        model.reconstruct(torch.full((2, 6), float("inf")))
    with pytest.raises(ValueError, match=r"^points=0: must be"):
        model.interpolate(X[:2], X[:2], points=0)


def test_codes_far_from_zero_are_decoded() -> None:
    """A mean of 10^6 standard deviations makes the bridge's samples float64; decoders take float32."""
    process = forward_process("CLD", (2,)).with_moments(torch.full((2,), 1e6), torch.full((2,), 0.25))
    model = latent.LatentModel(
        latent.VectorAutoencoder((3,), 2, width=4), Model(process, MLP((2,), width=4)), 1.0, (3,)
    )
    assert model.bridge.sample(2, steps=2, checked=False).dtype == torch.float64
    assert model.sample(2, steps=2, checked=False).dtype == torch.float32


def test_weights_of_a_file_are_the_networks(tmp_path: Path) -> None:
    """Centre and scale may be float64, where data are far from 0; a codec's weights are float32 whatever a file has."""
    process = forward_process("CLD", (2,)).with_moments(torch.zeros(2), torch.ones(2))
    codec = latent.VectorAutoencoder((3,), 2, width=4)
    latent.LatentModel(codec, Model(process, MLP((2,), width=4)), 1.0, (3,)).save(path := tmp_path / "m.safetensors")
    tensors, info = files.read(path, FORMAT)
    doubled = {k: v.double() if k.startswith("autoencoder.") else v for k, v in tensors.items()}
    files.write(path, FORMAT, doubled, info)
    there: Any = latent.load(path)
    assert {p.dtype for p in there.autoencoder.parameters()} == {torch.float32}
    assert there.autoencoder.centre.dtype == torch.float64
    assert bool(torch.isfinite(there.sample(2, steps=2)).all())
