"""Data: generated toys, panels of series, images. One module a source."""

from vsmd.data.toys import TOYS, Sampler, rotated, toy

__all__ = ["TOYS", "Sampler", "rotated", "toy"]
