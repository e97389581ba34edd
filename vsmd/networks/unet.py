"""A U-Net for images: residual blocks with scale and shift, attention at some sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsmd import checks
from vsmd.networks.contexts import Conditioning
from vsmd.networks.layers import Fourier, zeroed

HEAD = 64  # channels of an attention head


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 32), channels)


class _Residual(nn.Module):
    """x + conv silu((1 + scale) norm conv silu norm x + shift); halves or doubles the image inside if asked to."""

    def __init__(self, channels: int, out: int, embedding: int, resize: str = "") -> None:
        super().__init__()
        self.resize = resize
        self.norm1, self.conv1 = _norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = _norm(out), zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.modulate = nn.Linear(embedding, 2 * out)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def resized(self, x: Tensor) -> Tensor:
        if self.resize == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resize == "up" else x

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(self.resized(F.silu(self.norm1(x))))
        scale, shift = self.modulate(e)[..., None, None].chunk(2, 1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return self.skip(self.resized(x)) + h


class _Attention(nn.Module):
    """x + attention between the pixels, heads of 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(1, channels // HEAD), 0, -1) if channels % h == 0)
        self.norm = _norm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        h = self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, c)
        q, k, v = self.qkv(h).view(n, height * width, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, height * width, c)
        return x + self.out(h).view(n, height, width, c).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """A backbone U(image, level, context): image (n, C [+ C], H, W), level (n or 1,), result (n, C, H, W).

    `vsmd.scores.preconditioned` gives it the noisy image with one level of noise, the log signal-to-noise amplitude. It
    is a U-Net as in Dhariwal and Nichol (2021): `depth` residual blocks a size, width * multipliers channels, halved
    and doubled inside residual blocks, attention at the sizes `attention` (in pixels after patching) and in the middle;
    the level enters as Fourier features. The last maps start at zero: training begins with the exact score of Gaussian
    data. The defaults at (3, 32, 32) have 57 M parameters. Runs in any memory layout, under autocast and torch.compile.

    shape: (C, H, W) of an image. patch: blocks of so many pixels become channels at the entrance (default 1).
    classes: > 0 for a network of labels, context int64 (n,), -1 for none; default 0. frequencies: of the level.
    levels: the pixels' log relative standard deviations are C further channels of the image (default True).
    Raises ValueError for sizes that do not divide, and for labels that are missing or of another shape.
    """

    name = "unet"
    backbone = True

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        depth: int = 3,
        attention: Sequence[int] = (16, 8),
        patch: int = 1,
        classes: int = 0,
        frequencies: int = 16,
        levels: bool = True,
    ) -> None:
        super().__init__()
        channels, *sides = (checks.positive_int("shape", n) for n in shape)
        width, depth, patch = (
            checks.positive_int(k, v) for k, v in (("width", width), ("depth", depth), ("patch", patch))
        )
        self.settings: dict[str, Any] = {
            "shape": [channels, *sides], "width": width, "multipliers": list(multipliers), "depth": depth,
            "attention": list(attention), "patch": patch, "classes": classes, "frequencies": frequencies,
            "levels": levels,
        }  # fmt: skip
        least = patch * 2 ** (len(multipliers) - 1)
        if len(sides) != 2 or any(side % least for side in sides):
            raise ValueError(f"shape={tuple(shape)}: must be (channels, height, width), both multiples of {least}")
        self.patch, self.classes, self.levels, e = patch, classes, levels, 4 * width
        self.fourier = Fourier(frequencies)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, e), nn.SiLU(), nn.Linear(e, e))
        self.label = nn.Embedding(classes, e) if classes else None
        self.conditioning = Conditioning(classes) if classes else None
        size, c = sides[0] // patch, width
        self.first = nn.Conv2d((1 + levels) * channels * patch**2, c, 3, padding=1)
        skips, self.down = [c], nn.ModuleList()
        for i, m in enumerate(multipliers):
            if i:
                size //= 2
                self.down.append(_Residual(c, c, e, "down"))
                skips.append(c)
            for _ in range(depth):
                self.down.append(_Stage(c, m * width, e, size in attention))
                c = m * width
                skips.append(c)
        self.middle = nn.ModuleList([_Stage(c, c, e, True), _Residual(c, c, e)])
        self.up = nn.ModuleList()
        for i, m in reversed(list(enumerate(multipliers))):
            for _ in range(depth + 1):
                self.up.append(_Stage(c + skips.pop(), m * width, e, size in attention))
                c = m * width
            if i:
                self.up.append(_Residual(c, c, e, "up"))
                size *= 2
        self.norm, self.last = _norm(c), zeroed(nn.Conv2d(c, channels * patch**2, 3, padding=1))

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        e = self.level(self.fourier(level[:, None]))
        if self.label is not None:
            if context is None or context.shape != image.shape[:1] or context.dtype != torch.int64:
                got = None if context is None else f"{context.dtype} {tuple(context.shape)}"
                raise ValueError(f"context={got}: must be labels, int64 ({len(image)},)")
            e = e + self.label(context.clamp(min=0)) * (context >= 0)[:, None]  # -1 is no label
        e = F.silu(e)
        h = self.first(F.pixel_unshuffle(image, self.patch) if self.patch > 1 else image)
        skips = [h]
        for block in self.down:
            h = block(h, e)
            skips.append(h)
        for block in self.middle:
            h = block(h, e)
        for block in self.up:
            h = block(h, e) if isinstance(block, _Residual) else block(torch.cat([h, skips.pop()], 1), e)
        h = self.last(F.silu(self.norm(h)))
        return F.pixel_shuffle(h, self.patch) if self.patch > 1 else h


class _Stage(nn.Module):
    """A residual block, and attention after it where there is some."""

    def __init__(self, channels: int, out: int, embedding: int, attends: bool) -> None:
        super().__init__()
        self.block = _Residual(channels, out, embedding)
        self.attention = _Attention(out) if attends else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.block(x, e)
        return h if self.attention is None else self.attention(h)
