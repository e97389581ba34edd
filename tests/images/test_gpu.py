"""What training and sampling do on a GPU: what they do on a CPU, but for rounding. Skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinyimages as tiny
import torch
from torch import Tensor

import vsmd
from repro.studies import images as runs
from repro.studies.throughput import throughput
from vsmd.images.__main__ import main
from vsmd.images.pictures import Pictures
from vsmd.images.sampling import Painter
from vsmd.samplers import SOLVERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def fitted(device: str, losses: list[float], steps: int = 12, **named: Any) -> vsmd.Model:
    chosen, found = tiny.config(method="VSULD", steps=steps), tiny.pictures(3)
    return vsmd.fit(
        chosen.process(found.shape), Pictures(found.train, flips=True), network=chosen.build(found.shape, 0),
        **chosen.fitting, device=device, on_loss=lambda step, value: losses.append(value), **named,
    )  # fmt: skip


def flat(network: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in network.parameters()])


def test_trains_as_a_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    losses: dict[str, list[float]] = {"cpu": [], "cuda": []}
    models = {device: fitted(device, found) for device, found in losses.items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=2e-3)
    away = flat(models["cuda"].network) - flat(models["cpu"].network)
    assert float(away.abs().mean()) < 1e-3  # a step moves a weight by up to 3e-3
    ours, theirs = (models[d].process.stiffness for d in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Stopped after seven steps of twelve, by a snapshot, and gone on with."""
    whole = fitted("cuda", [])
    path = tmp_path / "run.safetensors"
    named: dict[str, Any] = {"checkpoint": path, "checkpoint_every": 7}
    fitted("cuda", [], snapshots=(7,), on_snapshot=lambda step, model: True, **named)
    assert torch.equal(flat(fitted("cuda", [], **named).network), flat(whole.network))


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"rk45"}))
def test_same_images_from_the_same_seeds(solver: str) -> None:
    model = fitted("cpu", [])
    model = vsmd.Model(model.process, tiny.awake(model.network), model.history, model.t_min)
    want = Painter(model, solver, 12).floats(range(3))
    model.network.to("cuda")
    torch.testing.assert_close(Painter(model, solver, 12).floats(range(3)), want, atol=2e-2, rtol=1e-2)


def test_model_samples_and_weighs() -> None:
    model = fitted("cuda", [])
    x = model.sample(4, steps=5, seed=0)
    assert bool(torch.isfinite(x).all())
    assert bool(torch.isfinite(model.log_prob(x, rtol=1e-2, atol=1e-2)).all())


def test_command_line(tmp_path: Path) -> None:
    """bfloat16, channels last and compiled, resumed, then sampled."""
    values = tiny.pictures(3).train.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "mine.npz", images=values)
    given = ["train", "--config", "digits", "--data.images", str(tmp_path / "mine.npz"), "--out", str(tmp_path / "run")]
    given += tiny.words(
        "--network.width 8 --network.multipliers 1 --training.batch-size 8 --data.held-out 8 --device cuda "
        "--compute.precision bfloat16 --compute.channels-last --compute.compile --adaptation.rounds 2 "
        "--adaptation.paths 4 --adaptation.nodes 4 --checkpoints.every 4 --checkpoints.grid 4 "
        "--sampling.evaluations 4 --training.steps 8"
    )
    assert main(given) == 0
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "x.npz"), "-n", "5", "--device", "cuda"]) == 0
    with np.load(tmp_path / "x.npz") as found:
        assert found["images"].shape == (5, 4, 4, 3)


def test_runs_say_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "qualities", lambda x, *rest: {"KID": float(x.mean())})
    monkeypatch.setattr(runs, "_real", lambda *given: (torch.zeros(1), 0.0))
    small = {"network": {"width": 8}, "batch_size": 4, "held_out": 0, "rounds": 2, "paths": 4, "nodes": 3}
    plan = [{"solver": solver, "evaluations": [2]} for solver in ("exponential", "heun")]
    made = runs.run("digits", "VSCLD", 0, plan, 6, small, checkpoints=2, samples=4)
    assert {row["device"] for row in made.tables["images"]} == {torch.cuda.get_device_name()}
    (row,) = throughput("digits", "VSCLD", 4, 2, small).tables["images_throughput"]
    assert row["peak_memory_gb"] > 0
