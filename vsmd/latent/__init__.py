"""Diffusion on the codes of an autoencoder: the latent Schrödinger bridge (LSBDM) and the six methods in its place.

    autoencoder = latent.pretrain(latent.VectorAutoencoder(shape, latent=2), other_data, seed=0)
    model = latent.fit(data, autoencoder=autoencoder, bridge="LSBDM", seed=0)   # or "VSULD", or any forward process
    x = model.sample(1_000, seed=0)                                             # (n, *shape)
    model.save("latent.safetensors"); latent.load("latent.safetensors")

After Y. Jiao, L. Kang, H. Lin, J. Liu, H. Zuo, *Latent Schrödinger Bridge Diffusion Model for Generative Learning*,
arXiv 2404.13309. Anything with `encode` and `decode` can be the autoencoder (`DiffusersAutoencoder` adapts
an AutoencoderKL); its codes are what the bridge is trained on.
"""

from vsmd.latent.adapters import DiffusersAutoencoder
from vsmd.latent.autoencoder import Codec, ImageAutoencoder, VectorAutoencoder
from vsmd.latent.bridge import SIGMA, drift, schrodinger_bridge
from vsmd.latent.model import LatentModel, fit, load
from vsmd.latent.pretraining import pretrain

__all__ = [
    "SIGMA",
    "Codec",
    "DiffusersAutoencoder",
    "ImageAutoencoder",
    "LatentModel",
    "VectorAutoencoder",
    "drift",
    "fit",
    "load",
    "pretrain",
    "schrodinger_bridge",
]
