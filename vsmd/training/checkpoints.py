"""Checkpoints: atomic safetensors with weights, average, optimiser, A and step; no random state needs saving."""

from __future__ import annotations

import glob
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks, files, messages, stored
from vsmd.model import RATES
from vsmd.training.trainer import Trainer

FORMAT = "vsmd-checkpoint-2"


def save(trainer: Trainer, path: Path, keep: int = 1) -> None:
    """Write the trainer's state; `path` holds the old checkpoint until the new one is complete.

    keep: of the last checkpoints; those before `path` get their step into their names (`earlier`). Of several
    processes the first one writes. Raises OSError naming the path where it cannot be written, say on a full disk.
    """
    if not trainer.world.first:
        return
    tensors = state({"network": trainer.network, "average": trainer.average}, trainer.optimizer)
    tensors |= {name: rate.clone() for name, rate in zip(RATES, trainer.process.constant)}
    info = {"step": trainer.step, "history": trainer.history, "settings": trainer.settings}
    info["losses"] = [float(loss) for loss in trainer.losses]  # of several processes those of the first
    try:
        if keep > 1 and path.exists():
            _set_aside(path, trainer.saved)
        files.write(path, FORMAT, tensors, info)
    except OSError as error:
        stands = "the checkpoint before it stands" if path.exists() else "there is none yet"
        said = f"could not be written at step {trainer.step} ({messages.line(error.__cause__ or error, 200)}); {stands}"
        raise OSError(f"checkpoint={str(path)!r}: {said}") from None
    trainer.saved = trainer.step
    for old in earlier(path)[max(0, keep - 1) :]:
        old.unlink(missing_ok=True)


def state(modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of the tensors of modules, by name, and of the optimiser, as "optimizer.<parameter's number>.<field>"."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= files.prefixed(name, module.state_dict())
    for index, fields in optimizer.state_dict()["state"].items():
        tensors |= files.prefixed(f"optimizer.{index}", fields)
    return {name: value.clone() for name, value in tensors.items()}


def load_state(tensors: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Inverse of `state`: put the tensors into modules and optimiser."""
    for name, module in modules.items():
        module.load_state_dict(files.part(tensors, name))
    owners = [p for group in optimizer.param_groups for p in group["params"]]  # their moments share their layout
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in files.part(tensors, "optimizer").items():
        index, field = key.split(".")
        laid_out = value if field == "step" else torch.empty_like(owners[int(index)]).copy_(value)
        moments.setdefault(int(index), {})[field] = laid_out
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def check_settings(path: Path, old: dict[str, Any], settings: dict[str, Any]) -> None:
    """ValueError that names every setting in which a checkpoint's, `old`, differ from those of the run.

    More steps than the checkpoint's are none: the run goes on, from there as if it had been the longer one.
    """
    new = json.loads(json.dumps(settings, default=lambda v: v.item()))
    if new["steps"] > old.get("steps", math.inf):
        old = old | {"steps": new["steps"]}
    if isinstance(old.get("data"), list):  # older checkpoints have a few directions' moments there
        old = old | {"data": new["data"]}
    changed = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(f"checkpoint={str(path)!r}: was written with other settings ({'; '.join(changed)})")


def resumed(
    path: Path,
    tensors: dict[str, Tensor],
    info: dict[str, Any],
    settings: dict[str, Any],
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Bring modules and optimiser to the state that a file holds; its step. ValueError names what settings differ."""
    with files.refusing(path):
        files.check_finite(tensors)
        old, step = dict(info["settings"]), checks.non_negative_int("step", info["step"])
        checks.in_range("step", step, 0, old.get("steps", math.inf))
    check_settings(path, old, settings)
    with files.refusing(path):
        load_state(tensors, modules, optimizer)
    return step


def earlier(path: Path) -> list[Path]:
    """The checkpoints kept beside `path`, run-00001000.safetensors for run.safetensors, the latest first."""
    pattern = re.compile(re.escape(path.stem) + r"-\d{8,}" + re.escape(path.suffix))
    files_beside = path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}")
    return sorted((p for p in files_beside if pattern.fullmatch(p.name)), reverse=True)


def step_of(path: Path) -> int:
    """The step that the checkpoint `path` stands at, without reading its tensors; ValueError as `restore` has it."""
    with files.opened(path) as file:
        return checks.non_negative_int("step", json.loads(file.metadata()["info"])["step"])


def _set_aside(path: Path, step: int) -> None:
    """Give the checkpoint of `step` its second name; it keeps the first until that one is written over."""
    name = path.with_name(f"{path.stem}-{step:08d}{path.suffix}")
    if name.exists():
        return
    try:
        os.link(path, name)
    except OSError:  # a file system without links
        shutil.copyfile(path, name)


def restore(trainer: Trainer, path: Path) -> None:
    """Bring a fresh trainer to the checkpoint's state; ValueError names every setting that differs, old and new."""
    try:
        tensors, info = files.read(path, FORMAT)
    except ValueError as error:
        before = earlier(path)
        hint = f"; the one before it is {str(before[0])!r}, move it here to go on from it" if before else ""
        raise ValueError(f"{error}{hint}") from None
    modules: dict[str, nn.Module] = {"network": trainer.network, "average": trainer.average}
    with files.refusing(path):
        info["settings"].setdefault("context", trainer.context_digest)  # older checkpoints do not say
    trainer.step = trainer.saved = resumed(path, tensors, info, trainer.settings, modules, trainer.optimizer)
    with files.refusing(path):
        if trainer.adapts:
            shapes = {name: tuple(rate.shape) for name, rate in zip(RATES, trainer.process.constant)}
            stored.check_shapes(tensors, shapes)
            trainer.process = trainer.process.with_rates(*(tensors[name] for name in RATES if name in tensors))
        trainer.history = list(info["history"])
        losses = [checks.in_range("losses", value, -1e30, 1e30) for value in info.get("losses", [])]
        trainer.losses = [torch.tensor(value, device=trainer.parameters[0].device) for value in losses]
