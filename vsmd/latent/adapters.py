"""Pre-trained autoencoders of other libraries behind our `encode` and `decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor


class DiffusersAutoencoder:
    """A diffusers AutoencoderKL as a `Codec`: codes are the posterior's mean times its `scaling_factor`.

    autoencoder: the folder of one (`from_pretrained`; diffusers is imported then), or the loaded object itself:
    anything with `encode(x).latent_dist.mean`, `decode(z).sample` and, optionally, `config.scaling_factor`.
    Raises ImportError without diffusers, ValueError for a path that is no folder.
    """

    def __init__(self, autoencoder: str | Path | Any) -> None:
        if isinstance(autoencoder, str | Path):
            if not Path(autoencoder).is_dir():
                raise ValueError(f"autoencoder={str(autoencoder)!r}: must be a folder written by diffusers")
            try:
                from diffusers import AutoencoderKL  # type: ignore[import-not-found,unused-ignore]
            except ImportError:
                raise ImportError("DiffusersAutoencoder: needs diffusers (pip install diffusers)") from None
            autoencoder = AutoencoderKL.from_pretrained(autoencoder, local_files_only=True)
        if hasattr(autoencoder, "eval"):
            autoencoder.eval()
        self.autoencoder = autoencoder
        self.scaling = float(getattr(getattr(autoencoder, "config", None), "scaling_factor", 1.0))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, c, h, w) of images x (n, C, H, W) in [-1, 1]."""
        return self.autoencoder.encode(x).latent_dist.mean * self.scaling

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, C, H, W) of codes z (n, c, h, w)."""
        return self.autoencoder.decode(z / self.scaling).sample
