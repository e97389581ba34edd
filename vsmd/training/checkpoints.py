"""Checkpoints: atomic safetensors with weights, average, optimiser, A and step; no random state needs saving."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vsmd import files
from vsmd.model import RATES
from vsmd.training.trainer import Trainer

FORMAT = "vsmd-checkpoint-2"


def save(trainer: Trainer, path: Path, settings: dict[str, Any], keep: int = 1) -> None:
    """Write the trainer's state; `path` holds the old checkpoint until the new one is complete.

    keep: of the last checkpoints; those before `path` get their step into their names (`earlier`). Of several
    processes the first one writes. Raises OSError naming the path where it cannot be written, say on a full disk.
    """
    if not trainer.world.first:
        return
    tensors: dict[str, Tensor] = {}
    for name, module in (("network", trainer.network), ("average", trainer.average)):
        tensors |= {f"{name}.{k}": _plain(v) for k, v in module.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": _plain(v) for k, v in state.items()}
    tensors |= {name: rate.clone() for name, rate in zip(RATES, trainer.process.constant)}
    info = {"step": trainer.step, "history": trainer.history, "settings": settings}
    try:
        if keep > 1 and path.exists():
            _set_aside(path, trainer.saved)
        files.write(path, FORMAT, tensors, info)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        stands = "the checkpoint before it stands" if path.exists() else "there is none yet"
        raise OSError(
            f"checkpoint={str(path)!r}: could not be written at step {trainer.step} ({reason}); {stands}"
        ) from None
    trainer.saved = trainer.step
    for old in earlier(path)[max(0, keep - 1) :]:
        old.unlink(missing_ok=True)


def _plain(value: Tensor) -> Tensor:
    """A copy on the CPU in the layout that files hold."""
    return value.detach().cpu().contiguous().clone()


def earlier(path: Path) -> list[Path]:
    """The checkpoints kept beside `path`, run-00001000.safetensors for run.safetensors, the latest first."""
    pattern = re.compile(re.escape(path.stem) + r"-\d{8,}" + re.escape(path.suffix))
    found = path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}")
    return sorted((p for p in found if pattern.fullmatch(p.name)), reverse=True)


def step_of(path: Path) -> int:
    """The step that the checkpoint `path` stands at, without reading its tensors; ValueError as `restore` has it."""
    with files.refusing(path), safe_open(str(path), framework="pt") as file:
        return int(json.loads(file.metadata()["info"])["step"])


def _set_aside(path: Path, step: int) -> None:
    """Give the checkpoint of `step` its second name; it keeps the first until that one is written over."""
    name = path.with_name(f"{path.stem}-{step:08d}{path.suffix}")
    if name.exists():
        return
    try:
        os.link(path, name)
    except OSError:  # a file system without links
        shutil.copyfile(path, name)


def restore(trainer: Trainer, path: Path, settings: dict[str, Any]) -> None:
    """Bring a fresh trainer to the checkpoint's state; ValueError names every setting that differs, old and new."""
    try:
        tensors, info = files.read(path, FORMAT)
    except ValueError as error:
        if kept := earlier(path):
            raise ValueError(f"{error}; the one before it is {str(kept[0])!r}, move it here to go on from it") from None
        raise
    old, new = info["settings"], json.loads(json.dumps(settings, default=lambda v: v.item()))
    changed = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(f"checkpoint={str(path)!r}: was written with other settings ({'; '.join(changed)})")
    with files.refusing(path):
        for name, module in (("network", trainer.network), ("average", trainer.average)):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            module.load_state_dict(own)
        state: dict[int, dict[str, Any]] = {}
        owners = dict(enumerate(trainer.parameters))  # whose layout in memory their moments share
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".")
                like = value if field == "step" else torch.empty_like(owners[int(index)]).copy_(value)
                state.setdefault(int(index), {})[field] = like
        trainer.optimizer.load_state_dict(
            {"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]}
        )
        if trainer.adapts:
            trainer.process = trainer.process.with_rates(*(tensors[name] for name in RATES if name in tensors))
        trainer.history, trainer.step = info["history"], info["step"]
        trainer.saved = trainer.step
