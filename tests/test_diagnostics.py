"""What is told before training: noise left at t_min, data left at t = 1, the prior beside draws of a_1, late errors."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vsmd
from vsmd import diagnostics, latent, random
from vsmd.diagnostics import StartWarning, data_left, noise_left, prior_gap
from vsmd.latent import VectorAutoencoder


def draws(kind: str, n: int = 4_000, dim: int = 2) -> Tensor:
    """n points with independent columns: normal, or of heavy tails, variance 1 either way."""
    x = torch.randn(n, dim, generator=random.generator(5, kind))
    return x if kind == "normal" else x.sign() * x.abs() ** 3 / math.sqrt(15)


def told(process: vsmd.ForwardProcess, data: Tensor, **options: object) -> list[str]:
    """The warnings of a fit of one step."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        vsmd.fit(process, data, steps=1, batch_size=4, **options)  # type: ignore[arg-type]
    return [str(w.message) for w in seen if issubclass(w.category, StartWarning)]


@pytest.mark.parametrize(
    ("method", "beta", "want"), [("SGM", 5.0, 0.07075), ("VSULD", 5.0, 0.0025), ("CLD", 150.0, 0.0733)]
)
def test_noise_left(method: str, beta: float, want: float) -> None:
    """sqrt(e^{beta t} - 1) without velocity; beta t/2 to leading order with."""
    process = vsmd.forward_process(method, (3,), beta=beta).with_moments(torch.zeros(3), torch.ones(3))
    left = noise_left(process, 1e-3)
    assert left.shape == (3,)
    assert left.tolist() == pytest.approx([want] * 3, rel=0.03)
    cov = process.transition(1e-3).cov[0, 0, 0]
    assert float(left[0]) == pytest.approx(float((cov / process.transition(1e-3).mean[0, 0, 0] ** 2).sqrt()))


def test_data_left() -> None:
    """Of standardised data CLD at beta = 5 keeps 12 % of the variance at t = 1; SGM e^{-beta}."""
    unit = torch.zeros(2), torch.ones(2)
    assert float(data_left(vsmd.forward_process("SGM", (2,)).with_moments(*unit))[0]) == pytest.approx(math.exp(-5))
    assert float(data_left(vsmd.forward_process("CLD", (2,)).with_moments(*unit))[0]) == pytest.approx(0.12, abs=0.01)


def test_prior_kl_of_data() -> None:
    """Around (10, 100) two moments by hand answered hundreds of nats for data that are fine."""
    data = draws("normal", 5_000) + torch.tensor([10.0, 100.0])
    process = vsmd.forward_process("VSULD", (2,))
    assert float(process.prior_kl(data).max()) < 0.1
    assert float(process.prior_kl(1e3 * data).max()) < 0.1  # in the units that `fit` gives them
    raw = process.prior_kl(torch.tensor([1.0, 30.0]) * data, units="raw")
    assert float(raw[0]) < 0.1
    assert float(raw[1]) > 1
    assert raw.tolist() == pytest.approx(
        process.moments_kl(0.0, (torch.tensor([1.0, 30.0]) * data).double().var(0, correction=0)).tolist()
    )
    with pytest.raises(ValueError, match=r"^units="):
        process.prior_kl(data.mean(0), data.var(0))  # type: ignore[arg-type]


def test_prior_gap_sees_shape() -> None:
    """Gaussian data meet the prior of their moments; heavy tails do not, though every KL of moments is 0."""
    process = vsmd.forward_process("CLD", (2,), beta=2.0)
    good, bad = (prior_gap(process, draws(kind)) for kind in ("normal", "heavy"))
    assert good.gap < 2 * good.floor
    assert not good.clear
    assert bad.gap > 2 * bad.floor
    assert bad.clear
    assert bad.beta is not None
    assert not prior_gap(vsmd.forward_process("CLD", (2,), beta=bad.beta), draws("heavy")).clear
    assert re.match(r"prior='moments': .* W2 .*floor .*column [01] .*% of the variance .*beta=", str(bad))
    assert not prior_gap(dataclasses.replace(process, prior="empirical"), draws("heavy", 500)).clear


def test_patches_of_photographs_are_not_fine() -> None:
    """64 whitened directions with heavy tails: a small prior-KL, but an eighth of the end is still the data."""
    from sklearn.datasets import load_sample_images

    grey = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images]).float().mean(-1)
    patches = grey.unfold(1, 8, 5).unfold(2, 8, 5).reshape(-1, 64) / 255
    gaussian, moments = (vsmd.forward_process("CLD", (64,), prior=prior) for prior in ("gaussian", "moments"))
    gap = prior_gap(gaussian, patches, units="whitened")
    assert gap.clear
    assert float(gaussian.prior_kl(patches, units="whitened").max()) < 0.01
    assert re.search(r"up to 12 % of the variance at t = 1 is the data's; beta=8\.\d+, prior='moments'", str(gap))
    better = prior_gap(moments, patches, units="whitened")
    assert better.gap < 0.75 * gap.gap
    assert not better.clear


def test_prior_gap_sees_moments() -> None:
    """The Gaussian prior of the paper on stretched raw data: one direction is not covered."""
    process, data = vsmd.forward_process("CLD", (2,), prior="gaussian"), draws("normal") * torch.tensor([1.0, 20.0])
    gap = prior_gap(process, data, units="raw")
    assert gap.clear
    assert int(gap.marginal.argmax()) == 1
    assert "prior='moments'" in str(gap)
    assert gap.left[1] > 0.9
    assert not prior_gap(dataclasses.replace(process, prior="moments"), data, units="raw").clear
    steered = vsmd.forward_process("CLD", (2,), prior="gaussian", variational_score="steered")
    assert not prior_gap(steered, data, units="raw").clear


def test_fit_warns_of_noise() -> None:
    """Column, std and noise, once; nothing for what the defaults make of the same data."""
    data = draws("normal", 300) * torch.tensor([1.0, 1e-3])
    process = vsmd.forward_process("VSULD", (2,))
    (line,) = told(process, data, units="raw")
    assert re.match(
        r"noise of std 0\.0025 is left at t_min=0\.001 where the data's is 0\.00\d+, column 1 \(units", line
    )
    assert "units='standardised'" in line
    assert told(process, data) == []
    (line,) = told(vsmd.forward_process("SGM", (2,)), data)
    assert "0.0708" in line
    assert "a method with velocity" in line
    assert len(told(vsmd.forward_process("CLD", (2,), beta=150.0), data)) == 1


def test_fit_warns_of_a_thin_axis_across_the_columns() -> None:
    """Two columns that are nearly one; not the rounding of columns that depend on each other."""
    process = vsmd.forward_process("VSULD", (2,), prior="moments")
    x = draws("normal", 3_000) @ torch.tensor([[1.0, 1.0], [0.0, 1e-3]])
    (said,) = told(process, x, units="standardised")
    y = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    thin = float(torch.linalg.svdvals(y)[-1]) / math.sqrt(len(x))
    axis = r"an axis mostly of column [01] and column [01] \(units='standardised'\)"
    assert re.search(rf"where the data's is {thin:.3g}, {axis}", said)
    assert "units='whitened' or a smaller beta leaves less" in said
    assert told(process, x, units="whitened") == []
    a, b = (100 + draws("normal", 3_000)).T
    assert told(vsmd.forward_process("VSULD", (3,), prior="moments"), torch.stack([a, b, a + b], 1)) == []


def test_a_mean_is_no_data() -> None:
    """One line for points without their first axis, whoever is asked."""
    process, mean = vsmd.forward_process("VSULD", (2,)), draws("normal").mean(0)
    for ask in (process.prior_kl, process.with_data):
        with pytest.raises(ValueError, match=r"^data: shape \(2,\); must be \(n, 2\)$"):
            ask(mean)


def test_fit_warns_of_the_prior() -> None:
    data = draws("normal", 5_000) * torch.tensor([1.0, 20.0])
    (line,) = told(vsmd.forward_process("CLD", (2,), prior="gaussian"), data, units="raw")
    assert line.startswith("prior='gaussian': ")
    assert told(vsmd.forward_process("VSCLD", (2,), prior="gaussian"), data, units="raw") == []  # A will cover it


def test_late_errors_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixture priors, steering and checkpoints that would fail after training, or on the way, fail before a step."""
    monkeypatch.setattr("vsmd.training.trainer.Trainer.advance", lambda self: pytest.fail("a step was taken"))
    data = draws("normal", 20)
    with pytest.raises(ValueError, match=r"^prior='mixture': 20 points; must be at least 32"):
        vsmd.fit(vsmd.forward_process("CLD", (2,), prior="mixture"), data)
    process = vsmd.forward_process("CLD", (2,), beta=1e-5, variational_score="steered")
    with pytest.raises(ValueError, match=r"^beta=1e-05: too small to steer"):
        vsmd.fit(process, data * torch.tensor([1e-3, 1e3]), units="raw")
    process = vsmd.forward_process("CLD", (2,))
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "c.safetensors"):
        with pytest.raises(OSError, match=r"^checkpoint='.*': could not be written"):
            vsmd.fit(process, data, checkpoint=path)


def test_latent_stop_comes_first() -> None:
    """A stop that no grid covers was told after all training, and the model was lost."""

    class Counting(VectorAutoencoder):
        calls = 0

        def encode(self, x: Tensor) -> Tensor:
            Counting.calls += len(x)
            return super().encode(x)

    for stop, bridge in ((0.5, "LSBDM"), (0.9, "VSULD"), (None, "LSBDN")):
        Counting.calls = 0
        with pytest.raises(ValueError, match=r"^(stop|bridge)="):
            latent.fit(draws("normal", 500, 4), autoencoder=Counting((4,), 2), bridge=bridge, stop=stop, steps=1)
        assert Counting.calls <= 4, stop


def test_warning_has_a_class() -> None:
    assert issubclass(diagnostics.StartWarning, UserWarning)


def test_directions_in_the_words_of_the_data() -> None:
    """Columns, pixels, and axes by the columns that they are of."""
    points = vsmd.forward_process("CLD", (3,))
    assert diagnostics.direction(points.with_data(torch.randn(9, 3)), 2) == "column 2"
    data = torch.randn(500, 3, generator=random.generator(0, "words"))
    data[:, 2] = data[:, 1] + 1e-3 * data[:, 2]
    for process in (vsmd.forward_process("CLD", (3,), basis="principal"), points.with_units("whitened")):
        said = diagnostics.direction(process.with_data(data), 0)
        assert said in ("an axis mostly of column 1 and column 2", "an axis mostly of column 2 and column 1")
    images = torch.randn(9, 2, 4, 5)
    pixels = vsmd.forward_process("CLD", (2, 4, 5)).with_data(images)
    assert diagnostics.direction(pixels, 1 * 20 + 3 * 5 + 2) == "pixel (row 3, column 2) of channel 1"
    spread = vsmd.forward_process("CLD", (2, 4, 5), basis="cosine").with_data(images)
    assert diagnostics.direction(spread, 0) == "cosine direction 0"


def test_images_are_not_told_of_units_a_pixel() -> None:
    """Raw pixels: their place, and no cure that would stretch every pixel for itself."""
    images = torch.randn(300, 1, 2, 2, generator=random.generator(0, "pixels")) * torch.tensor(
        [[1.0, 1.0], [1.0, 1e-3]]
    )
    (line,) = [w for w in told(vsmd.forward_process("CLD", (1, 2, 2)), images, units="raw") if "noise" in w]
    assert "pixel (row 1, column 1) of channel 0" in line
    assert "units='standardised'" not in line
