"""What the file of a model may say, checked before anything is allocated: its digest tells damage, not intent."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vsmd import checks, files
from vsmd.family import GAMMAS, SCORE_MATCHING, VARIATIONAL_SCORES
from vsmd.methods import METHODS
from vsmd.priors import PRIORS

SIZES = {"width", "depth", "expand", "frequencies", "features", "patch", "classes", "latent"}  # of networks


def check(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """ValueError for a process that cannot be: sizes, moments, rates, prior of `vsmd.model.state`."""
    files.check_finite(tensors)
    if other := [k for k, v in tensors.items() if v.dtype != torch.float64 and not k.startswith("network.")]:
        raise ValueError(f"{checks.some(other)}: {tensors[other[0]].dtype}; must be float64")
    settings, fields, prior = info["process"], files.part(tensors, "process"), files.part(tensors, "prior")
    shape = tuple(checks.positive_int("shape", n) for n in settings["shape"])
    row = METHODS[checks.one_of("method", settings["method"], METHODS)]
    checks.positive("gamma", settings["gamma"], GAMMAS)
    if row.k == 2:
        checks.positive("damping", settings["damping"])
    checks.one_of("variational_score", settings["variational_score"], (*VARIATIONAL_SCORES, "fixed"))
    checks.one_of("prior", settings["prior"], PRIORS)
    checks.one_of("score_matching", settings["score_matching"], SCORE_MATCHING)
    checks.in_range("t_min", info["t_min"], 1e-12, 1 - 1e-12)
    if not isinstance(info["history"], list):
        raise TypeError("history is no list")
    for name in ("mean", "var", "stiffness", "friction")[: 2 + row.k]:
        _check_shape(name, fields[name] if name in ("mean", "var") else fields[name][0], shape)
    least = {name: float(fields[name].min()) for name in ("var", "stiffness")}
    if least["var"] < 0 or (row.k == 2 and least["stiffness"] <= 0):
        raise ValueError(f"var={least['var']:g}, stiffness={least['stiffness']:g} at their least; must be >= 0 and > 0")
    if prior:
        _check_shape("prior.means", prior["means"], (*prior["weights"].shape, math.prod(shape)))
        size = prior["scale"].diagonal(dim1=-2, dim2=-1) if prior["scale"].ndim == 3 else prior["scale"]
        _check_shape("prior.scale", size[(0,) * (size.ndim - 1)], (math.prod(shape),))
        if float(prior["weights"].min()) < 0 or float(size.min()) <= 0:
            raise ValueError("prior: weights must be >= 0 and scales > 0")


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} is {tuple(value.shape)}; must be {shape}")


def check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError for a tensor of `shapes` that is missing, of another one or not finite."""
    for name, shape in shapes.items():
        _check_shape(name, tensors[name], shape)
    files.check_finite({name: tensors[name] for name in shapes})


@contextmanager
def within(weights: Mapping[str, Tensor], settings: Mapping[str, Any], shape: tuple[int, ...]) -> Iterator[None]:
    """Build a network from a file: ValueError once `settings` ask for more parameters than the file has `weights`."""
    if "shape" in settings and tuple(settings["shape"]) != shape:
        raise ValueError(f"shape={settings['shape']} of the network; must be {list(shape)}")
    left, tensors, thread = sum(v.numel() for v in weights.values()), len(weights), threading.get_ident()
    for name in SIZES & settings.keys():
        if isinstance(settings[name], int):
            checks.in_range(name, settings[name], 0, left)  # of the numbers that the file holds

    def count(module: nn.Module, name: str, parameter: object) -> None:
        nonlocal left, tensors
        if threading.get_ident() == thread and isinstance(parameter, Tensor):
            left, tensors = left - parameter.numel(), tensors - 1
            if left < 0 or tensors < 0:
                raise ValueError("its settings are those of a larger network than the file holds")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
