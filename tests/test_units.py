"""Units of a process: the affine map and back, fits that agree with data standardised by hand, densities."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vsmd
from vsmd import diagnostics, random
from vsmd.networks.mlp import MLP
from vsmd.units import RAW, UNITS, Units

LARGE = {"raw": 2.0, "standardised": 0.1}  # nats: noise of .0025 is left on raw data of std .011
SCALES = torch.tensor([1e-3, 0.1, 1.0, 100.0, 1e4], dtype=torch.float64)


class Zero(nn.Module):
    """The exact network of Gaussian data."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return 0 * z * self.nothing


def gaussian(n: int = 3_000, scale: float | Tensor = 1.0, dim: int = 2, mean: float = 0.0) -> Tensor:
    """n points, float64, of N(mean, scale^2 C) with correlated columns."""
    noise = torch.randn(n, dim, generator=random.generator(3, "units"), dtype=torch.float64)
    mixed = noise + 0.5 * noise.flip(1)
    return mean + mixed * scale


def exact(x: Tensor, data: Tensor) -> Tensor:
    """Log-density of the Gaussian with the data's moments."""
    cov = torch.cov(data.T, correction=0)
    return torch.distributions.MultivariateNormal(data.mean(0), cov).log_prob(x)


def fitted(data: object, units: str, method: str = "VSULD", steps: int = 1, **options: object) -> vsmd.Model:
    """The model of Gaussian data: its network is exact already."""
    shape = tuple(data.shape[1:]) if isinstance(data, Tensor) else (2,)
    process = vsmd.forward_process(method, shape, basis="principal", variational_score="zero")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diagnostics.StartWarning)
        options = {"network": Zero(), "batch_size": 16, **options}
        return vsmd.fit(process, data, units=units, steps=steps, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("units", UNITS)
def test_into_and_back(units: str) -> None:
    data = gaussian(500, SCALES, 5, mean=3.0)
    process = vsmd.forward_process("CLD", (5,)).with_units(units).with_data(data)
    z = process.to_directions(data)
    torch.testing.assert_close(process.from_directions(z), data)
    if units == "scaled":
        assert float(process.known().var.mean()) == pytest.approx(1)
        torch.testing.assert_close(z.std(0) / z.std(0).max(), data.std(0) / data.std(0).max())
    elif units != "raw":
        torch.testing.assert_close(z.std(0, correction=0), torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(process.known().var, torch.ones(5, dtype=torch.float64))
    if units == "whitened":
        torch.testing.assert_close(torch.cov(z.T, correction=0), torch.eye(5, dtype=torch.float64))
    jacobian = torch.autograd.functional.jacobian(lambda x: process.to_directions(x[None])[0], data[0])
    assert process.units.log_det == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-9)


def test_standardised_is_standardised_by_hand() -> None:
    data = gaussian(400, torch.tensor([0.01, 50.0]), mean=7.0)
    mean, std = data.mean(0), data.std(0, correction=0)
    process = vsmd.forward_process("VSULD", (2,))
    options = {"steps": 9, "batch_size": 32, "adaptation": vsmd.Adaptation(rounds=2, paths=20, nodes=3)}
    options["network"] = MLP((2,), width=8, depth=1)
    ours = vsmd.fit(process, data, **options)  # type: ignore[arg-type]
    hand = vsmd.fit(process, (data - mean) / std, units="raw", **options)  # type: ignore[arg-type]
    x = ours.sample(50, seed=1)
    torch.testing.assert_close(x.double(), hand.sample(50, seed=1) * std + mean, rtol=1e-3, atol=1e-3 * float(std[0]))
    want = hand.log_prob((data[:5] - mean) / std, rtol=1e-2, atol=1e-2) - std.log().sum()
    torch.testing.assert_close(ours.log_prob(data[:5], rtol=1e-2, atol=1e-2), want, rtol=1e-3, atol=1e-3)


def test_whitened_is_whitened_by_hand() -> None:
    data = gaussian(400, torch.tensor([0.01, 50.0]), mean=7.0)
    mean, std = data.mean(0), data.std(0, correction=0)
    process = vsmd.forward_process("VSULD", (2,), variational_score="zero")
    ours = vsmd.fit(process, data, units="whitened", steps=20, batch_size=32)
    axes, y = ours.process.units.tensors["axes"], (data - mean) / std  # of either sign
    values = (axes.T @ (y.T @ y / len(y)) @ axes).diagonal()
    matrix = axes / values.sqrt() / std[:, None]
    hand = vsmd.fit(process, (data - mean) @ matrix, units="raw", steps=20, batch_size=32)
    want = hand.sample(200, seed=1).double() @ torch.linalg.inv(matrix) + mean
    torch.testing.assert_close(ours.sample(200, seed=1).double(), want, rtol=1e-3, atol=1e-3 * float(std[0]))


@pytest.mark.parametrize("units", ["standardised", "whitened"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e4])
def test_density_and_samples_at_any_scale(units: str, scale: float) -> None:
    """Std 1e-3: 13.3 nats where raw units have -12.9."""
    data = gaussian(scale=scale, mean=2.0)
    model = fitted(data, units)
    assert (model.log_prob(data[:50]) - exact(data[:50], data)).abs().max() < 0.05
    x = model.sample(20_000, seed=1)
    assert ((x.double().std(0) / data.std(0) - 1).abs() < 0.05).all()


def test_scales_of_one_data_set_far_apart() -> None:
    """5-D with standard deviations 1e-3 to 1e4: raw units answer -617,623 nats."""
    data = gaussian(scale=SCALES, dim=5)
    model = fitted(data, "standardised")
    assert (model.log_prob(data[:20]) - exact(data[:20], data)).abs().max() < 0.1
    x = model.sample(20_000, seed=1)
    assert ((x.double().std(0) / data.std(0) - 1).abs() < 0.05).all()


def test_constant_columns_and_copies() -> None:
    column = gaussian(300)[:, :1]
    data = torch.cat([column, torch.full_like(column, 0.1), 3 * column], 1).float()
    for units in ("standardised", "whitened"):
        model = fitted(data, units)
        x = model.sample(500, seed=0)
        assert ((x[:, 1] - 0.1).abs() < 0.01).all(), units
        torch.testing.assert_close(x[:, 2], 3 * x[:, 0], rtol=0.02, atol=0.05)


def test_refused() -> None:
    process = vsmd.forward_process("CLD", (8,))
    with pytest.raises(ValueError, match=r"^units='white': must be one of .*did you mean 'whitened'"):
        vsmd.fit(process, torch.randn(4, 8), units="white")
    with pytest.raises(ValueError, match=r"^units='whitened': 8 points in 8 dimensions have no full covariance"):
        process.with_units("whitened").with_data(torch.randn(8, 8))
    with pytest.raises(ValueError, match=r"^units='whitened': 5000 dimensions; must be at most 4096"):
        vsmd.forward_process("CLD", (5_000,)).with_units("whitened").with_data(torch.randn(2, 5_000))
    with pytest.raises(ValueError, match=r"^units='standardised': are measured on data; call with_data"):
        process.with_units("standardised").with_moments(torch.zeros(8), torch.ones(8))
    with pytest.raises(ValueError, match=r"^units='standardised': need the data twice"):
        process.with_units("standardised").with_data(iter([torch.randn(4, 8)]))


def test_streamed_data_are_read_again() -> None:
    class Stream:
        data = gaussian(200, torch.tensor([1e-3, 1e3])).float()

        def __call__(self, n: int, generator: torch.Generator) -> Tensor:
            return self.data[torch.randint(len(self.data), (n,), generator=generator)]

        def all_batches(self) -> Iterator[Tensor]:
            yield from self.data.split(64)

    model = fitted(Stream(), "standardised")
    assert float(model.process.known().var.sum()) == pytest.approx(2)
    torch.testing.assert_close(model.process.units.tensors["scale"], Stream.data.double().std(0, correction=0))
    torch.testing.assert_close(model.process.known().mean, Stream.data.double().mean(0))


@pytest.mark.parametrize("units", UNITS)
def test_saved_and_resumed(units: str, tmp_path: Path) -> None:
    data = gaussian(100, torch.tensor([0.1, 50.0]))
    process = vsmd.forward_process("VSULD", (2,), variational_score="zero")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diagnostics.StartWarning)
        model = vsmd.fit(process, data, units=units, steps=4, batch_size=8, checkpoint=tmp_path / "c.safetensors")
        same = vsmd.load(model.save(tmp_path / "m.safetensors"))
        assert same.process.units.name == units
        assert torch.equal(same.sample(5), model.sample(5))
        assert torch.equal(same.log_prob(data[:3]), model.log_prob(data[:3]))
        other = "raw" if units != "raw" else "whitened"
        with pytest.raises(ValueError, match="was written with other settings"):
            vsmd.fit(process, data, units=other, steps=4, batch_size=8, checkpoint=tmp_path / "c.safetensors")
    assert ("units" in model.process.settings) == (units != "raw")  # files of before have no line for it


def test_large_mean_is_centred_in_the_datas_precision() -> None:
    """10^6 + .01 xi in float64: float32 has std .0022 for them, and a density that is off by 4.8 nats."""
    data = gaussian(scale=0.01, mean=1e6)
    for units in LARGE:
        model = fitted(data, units)
        x = model.sample(20_000, seed=1)
        assert x.dtype == torch.float64
        assert ((x.std(0) / data.std(0) - 1).abs() < 0.05).all()
        assert (model.log_prob(data[:50]) - exact(data[:50], data)).abs().max() < LARGE[units]
    assert fitted(gaussian(mean=1e3), "standardised").sample(2).dtype == torch.float32


def test_raw_units_are_what_they_were() -> None:
    data = gaussian().float()
    process = vsmd.forward_process("CLD", (2,)).with_data(data)
    assert process.units is RAW
    assert torch.equal(process.to_directions(data), data - data.double().mean(0).float())
    assert Units("raw").log_det == 0.0


class Backbone(nn.Module):
    """The exact network of Gaussian images, called with one level of noise; it remembers how wide its images were."""

    backbone = True

    def __init__(self) -> None:
        super().__init__()
        self.nothing, self.widest = nn.Parameter(torch.zeros(())), 0.0

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        self.widest = max(self.widest, float(image.detach().abs().max()))
        return 0 * image * self.nothing


def test_backbones_see_pixels_of_one_scale() -> None:
    """A border that hardly varies is not stretched to the width of the middle; grey levels of 0 to 255 are fine."""
    size = torch.tensor([[1.0, 1e-3], [1.0, 1.0]])
    images = 128 + 40 * size * torch.randn(400, 1, 2, 2, generator=random.generator(0, "border"))
    images[0, 0, 0, 1] = 129.0  # one speck on the border
    process = vsmd.forward_process("VSULD", (1, 2, 2), variational_score="zero")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = vsmd.fit(process, images, network=Backbone(), steps=1, batch_size=16)
        stretched = vsmd.fit(process, images, network=Backbone(), units="standardised", steps=1, batch_size=16)
    assert (model.process.units.name, stretched.process.units.name) == ("scaled", "standardised")
    scale = model.process.units.tensors["scale"]
    assert torch.equal(scale, scale[:1, :1, :1].expand_as(scale))
    seen = [m.process.units.into(images - m.process.known().mean) for m in (model, stretched)]
    assert float(seen[0].abs().max()) < 5 < 15 < float(seen[1].abs().max())
    x = model.sample(4_000).double()
    assert torch.allclose(x.std(0)[0, 0, 0], images.double().std(0)[0, 0, 0], rtol=0.05)
    again = vsmd.fit(process, images, init=model, steps=1, batch_size=16)
    assert again.process.units.name == "scaled"
    with pytest.raises(ValueError, match=r"^init: is a model of scaled data; must be of raw ones, as units"):
        vsmd.fit(process, images, init=model, units="raw", steps=1)
