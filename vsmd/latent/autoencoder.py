"""Autoencoders: what one must have (`Codec`), two small ones of this package, and whether encoder and decoder fit."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from vsmd import checks, messages
from vsmd.units import Units


class Codec(Protocol):
    """An encoder (n, *shape) -> codes (n, *code_shape) and a decoder back, both for float32 tensors."""

    def encode(self, x: Tensor) -> Tensor:
        """Codes of data points."""

    def decode(self, z: Tensor) -> Tensor:
        """Data points of codes."""


class _Autoencoder(nn.Module):
    """What the two share: data are centred, in float64 where float32 would lose them, scaled; settings for files."""

    centre: Tensor
    scale: Tensor
    name, units = "", "standardised"  # units: by default of what it is pre-trained on

    def __init__(self, shape: tuple[int, ...], latent: int, width: int) -> None:
        super().__init__()
        self.shape = tuple(checks.positive_int("shape", n) for n in shape)
        self.latent, width = checks.positive_int("latent", latent), checks.positive_int("width", width)
        _not_above_ambient("latent", self.latent, math.prod(self.shape))
        self.settings: dict[str, Any] = {"shape": list(self.shape), "latent": self.latent, "width": width}
        self.register_buffer("centre", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(()))

    def fit_scale(self, x: Tensor, units: str = "scaled") -> None:
        """Set centre and scale from data (n, *shape): the mean; the rms deviation, or each one's."""
        mean, measured = Units(units).fitted(x.split(4_096))
        scale = measured.tensors["scale"]
        if (lost := measured.digits_lost(mean, scale.square())) or units == "standardised":
            kind = torch.float64 if lost else torch.float32
            self.centre, self.scale = (v.to(self.centre.device, kind) for v in (mean, scale))
        else:  # in float32 throughout: the last digits of stored runs
            self.centre.copy_((x := x.float()).mean(0))
            self.scale.copy_((x - x.mean(0)).square().mean().sqrt().clamp(min=1e-12))

    def decode(self, z: Tensor) -> Tensor:
        """Points (n, *shape) of codes z (n, latent)."""
        raise NotImplementedError

    def loss(self, z: Tensor, x: Tensor) -> Tensor:
        """How far points decoded from codes z are from x: |decode(z) - x|²/scale², mean over coordinates and points."""
        return ((self.decode(z) - x) / self.scale).square().mean()


class VectorAutoencoder(_Autoencoder):
    """Vectors (d,) to codes (latent,): encoder and decoder are each a linear map plus two hidden layers of `width`.

    Raises ValueError for latent > d, the ambient dimension.
    """

    name = "vector"

    def __init__(self, shape: tuple[int, ...], latent: int, width: int = 128) -> None:
        super().__init__(shape, latent, width)
        dim = math.prod(self.shape)
        self.encoder, self.encoder_line = _hidden(dim, width, latent), nn.Linear(dim, latent, bias=False)
        self.decoder, self.decoder_line = _hidden(latent, width, dim), nn.Linear(latent, dim, bias=False)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, latent) of x (n, *shape)."""
        h = ((x - self.centre) / self.scale).float().flatten(1)
        return self.encoder_line(h) + self.encoder(h)

    def decode(self, z: Tensor) -> Tensor:
        """Points (n, *shape) of codes z (n, latent)."""
        out = self.decoder_line(z) + self.decoder(z)
        return out.view(-1, *self.shape) * self.scale + self.centre


class ImageAutoencoder(_Autoencoder):
    """Images (C, H, W) to code vectors (latent,): strided convolutions of `width` and 2 `width` channels, two matrices.

    Codes are vectors, not maps: small images have no use for a grid, and a full A acts on the codes' principal axes.
    The decoder convolves on quarter and half of the resolution and deals channels out to pixels. Its images lie between
    the darkest and the lightest pixel of the data: low + (high - low) sigmoid(.), trained by cross-entropy, which has
    the mean as its optimum as squares have, but moves outputs that are saturated, too.
    Raises ValueError for latent > C H W, or sides that are no multiples of 4.
    """

    name, units = "image", "scaled"
    low: Tensor
    high: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int, width: int = 32) -> None:
        super().__init__(shape, latent, width)
        if len(self.shape) != 3 or self.shape[1] % 4 or self.shape[2] % 4:
            raise ValueError(f"shape={self.shape}: must be (channels, height, width) with sides that 4 divides")
        channels, height, side = self.shape
        inner, hidden = (2 * width, height // 4, side // 4), 8 * width
        flat = math.prod(inner)
        self.register_buffer("low", torch.tensor(-1.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(flat, hidden), nn.SiLU(), nn.Linear(hidden, latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, flat), nn.SiLU(), nn.Unflatten(1, inner),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), nn.Conv2d(width, 4 * channels, 3, 1, 1), nn.PixelShuffle(2),
        )  # fmt: skip

    def fit_scale(self, x: Tensor, units: str = "scaled") -> None:
        """Set centre, scale and the range of pixels from images (n, C, H, W)."""
        super().fit_scale(x, units)
        low, high = x.min(), x.max().clamp(min=float(x.min()) + 1e-6)
        self.low, self.high = low.to(self.centre), high.to(self.centre)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, latent) of images x (n, C, H, W)."""
        return self.encoder(((x - self.centre) / self.scale).float())

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, C, H, W) of codes z (n, latent), in [low, high]."""
        return self.low + (self.high - self.low) * self._logits(z).sigmoid()

    def loss(self, z: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy, in nats a pixel, of x as levels between low and high."""
        return nn.functional.binary_cross_entropy_with_logits(self._logits(z), self._level(x))

    def _level(self, x: Tensor) -> Tensor:
        return ((x - self.low) / (self.high - self.low)).float()

    def _logits(self, z: Tensor) -> Tensor:
        """The decoder starts from the mean image."""
        return self.decoder(z) + torch.logit(self._level(self.centre), eps=1e-2)


Autoencoder = VectorAutoencoder | ImageAutoencoder
AUTOENCODERS: dict[str, type[Autoencoder]] = {"vector": VectorAutoencoder, "image": ImageAutoencoder}


def is_ours(codec: object) -> TypeGuard[Autoencoder]:
    """Whether it is one of `AUTOENCODERS`, which a model file can hold."""
    return isinstance(codec, VectorAutoencoder | ImageAutoencoder)


def placed(codec: object) -> torch.device:
    """Where a codec computes: on the device of its parameters, or on the CPU."""
    module = codec if isinstance(codec, nn.Module) else getattr(codec, "autoencoder", None)
    first = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def _hidden(inputs: int, width: int, outputs: int) -> nn.Sequential:
    layers = (nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def _not_above_ambient(name: str, latent: int, ambient: int) -> None:
    if latent > ambient:
        raise ValueError(f"{name}={latent}: must be at most {ambient}, the ambient dimension")


def check_fit(codec: Codec, x: Tensor) -> tuple[int, ...]:
    """The shape of a code, after encoding and decoding points x (n, *shape) once.

    Raises TypeError without `encode` and `decode`; ValueError in one line if either fails, if decoded points are not
    shaped as x, if codes are not finite or have more numbers than points.
    """
    for method in ("encode", "decode"):
        if not callable(getattr(codec, method, None)):
            raise TypeError(f"autoencoder={type(codec).__name__}: must have encode and decode")
    codes = _tried("encoder does not take the data", codec.encode, x)
    if not isinstance(codes, Tensor) or codes.ndim < 2 or len(codes) != len(x):
        got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
        raise ValueError(f"autoencoder: encodes {tuple(x.shape)} to {got}; must be a tensor ({len(x)}, *code_shape)")
    if not bool(torch.isfinite(codes).all()):
        raise ValueError("autoencoder: codes have NaN or inf; must be finite")
    _not_above_ambient("latent", codes[0].numel(), x[0].numel())
    decoded = _tried("decoder does not take the encoder's codes", codec.decode, codes)
    if not isinstance(decoded, Tensor) or decoded.shape != x.shape:
        got = tuple(decoded.shape) if isinstance(decoded, Tensor) else type(decoded).__name__
        said = f"codes {tuple(codes.shape)} decode to {got}, must be {tuple(x.shape)} as the data"
        raise ValueError(f"autoencoder: encoder and decoder do not fit: {said}")
    return tuple(codes.shape[1:])


def _tried(failure: str, call: Any, value: Tensor) -> Any:
    try:
        with torch.no_grad():
            return call(value)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"autoencoder: {failure}, shape {tuple(value.shape)} ({messages.line(error, 160)})") from None
