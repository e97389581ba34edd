"""Images: configurations, training on one device or several, sampling and evaluation; `python -m vsmd.images`."""

from vsmd.images.configs import CONFIGS, Config, config
from vsmd.images.sampling import Painter
from vsmd.images.training import train

__all__ = ["CONFIGS", "Config", "Painter", "config", "train"]
