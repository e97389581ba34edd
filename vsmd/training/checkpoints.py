"""Checkpoints: atomic safetensors with weights, average, optimiser, A and step; no random state needs saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from vsmd import files
from vsmd.training.trainer import Trainer

FORMAT = "vsmd-checkpoint-1"


def save(trainer: Trainer, path: Path, settings: dict[str, Any]) -> None:
    """Write the trainer's state; `path` holds the old checkpoint until the new one is complete."""
    tensors: dict[str, Tensor] = {}
    for name, module in (("network", trainer.network), ("average", trainer.average)):
        tensors |= {f"{name}.{k}": v.detach().cpu().clone() for k, v in module.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.detach().cpu().clone() for k, v in state.items()}
    tensors["a_x"] = trainer.process.a_x.clone()
    if trainer.process.a_v is not None:
        tensors["a_v"] = trainer.process.a_v.clone()
    info = {"step": trainer.step, "history": trainer.history, "settings": settings}
    files.write(path, FORMAT, tensors, info)


def restore(trainer: Trainer, path: Path, settings: dict[str, Any]) -> None:
    """Bring a fresh trainer to the checkpoint's state; ValueError names every setting that differs, old and new."""
    tensors, info = files.read(path, FORMAT)
    old, new = info["settings"], json.loads(json.dumps(settings, default=lambda v: v.item()))
    changed = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(f"checkpoint={str(path)!r}: was written with other settings ({'; '.join(changed)})")
    with files.refusing(path):
        for name, module in (("network", trainer.network), ("average", trainer.average)):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            module.load_state_dict(own)
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".")
                state.setdefault(int(index), {})[field] = value
        trainer.optimizer.load_state_dict(
            {"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]}
        )
        if trainer.adapts:
            trainer.process = trainer.process.with_score(tensors["a_x"], tensors.get("a_v"))
        trainer.history, trainer.step = info["history"], info["step"]
