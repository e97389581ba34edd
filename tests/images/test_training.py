"""vsmd.images.training: a run's folder, its log over resumes, the best model, and data from uint8 on the host."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tinyimages import config, pictures

from vsmd import Model, files, load, random
from vsmd.bases import Coordinates
from vsmd.data.images import to_float
from vsmd.durations import duration
from vsmd.images import Painter, logs, train
from vsmd.images import training as room
from vsmd.images.pictures import Pictures
from vsmd.images.training import held_out_loss, together
from vsmd.training import checkpoints
from vsmd.training.distributed import World


def weights(model: Model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    folder = tmp_path_factory.mktemp("run")
    return folder, train(config(), folder, data=pictures())


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_moments_are_exact_without_a_float_copy(flips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsmd.images.pictures.BATCH", 7)
    values = pictures(3).train
    parts = list(Pictures(values, flips).all_batches())
    assert all(len(part) <= 14 for part in parts)
    x = to_float(values).double()
    x = torch.cat([x, x.flip(-1)]) if flips else x
    moments, _ = Coordinates(parts[0].shape[1:]).fitted(iter(parts))
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.var, x.var(0, correction=0), rtol=1e-6, atol=1e-12)


def test_batches_are_scaled_and_mirrored() -> None:
    values = torch.tensor([[[[0, 255]]]], dtype=torch.uint8).expand(2, 1, 1, 2)
    x = Pictures(values, flips=True)(400, torch.Generator().manual_seed(0))
    assert isinstance(x, torch.Tensor)
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    assert 150 < int((x[:, 0, 0, 0] == 1).sum()) < 250
    assert Pictures(values).values.data_ptr() == values.data_ptr()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(run: tuple[Path, Model]) -> None:
    from PIL import Image

    folder, model = run
    assert torch.equal(weights(load(folder / "model.safetensors")), weights(model))
    assert len(model.history) == 2
    assert (folder / "config.json").read_text() == config().text
    found = sorted(p.name for p in (folder / "samples").iterdir())
    assert found == ["00000005.png", "00000010.png", "00000012.png"]
    assert np.asarray(Image.open(folder / "samples" / found[0])).shape == (9, 9, 3)  # 2 x 2 and a line between
    assert (folder / "checkpoint-00000010.safetensors").exists()
    names = {"config.json", "log.csv", "model.safetensors", "best.safetensors", "samples", "tensorboard"}
    saved = {"checkpoint.safetensors", "checkpoint-00000010.safetensors"}
    assert {path.name for path in folder.iterdir()} - {"tensorboard"} == names - {"tensorboard"} | saved


def test_the_log(run: tuple[Path, Model]) -> None:
    found = rows(run[0])
    assert tuple(found[0]) == logs.COLUMNS
    losses = [row for row in found if row["loss"]]
    assert [int(row["step"]) for row in losses] == [5, 10, 12]
    assert [int(row["images"]) for row in losses] == [40, 80, 96]
    apart = [row for row in found if row["held_out_loss"]]
    assert [int(row["step"]) for row in apart] == [5, 10, 12]
    assert all(math.isfinite(float(row["held_out_loss"])) for row in apart)
    s = run[1].process.stiffness
    assert float(apart[-1]["stiffness_max"]) == pytest.approx(float(s.max()), rel=1e-5)


def test_the_best_model_is_that_of_the_lowest_loss_with_the_last_a(run: tuple[Path, Model]) -> None:
    folder, model = run
    best = load(folder / "best.safetensors")
    apart = [row for row in rows(folder) if row["held_out_loss"]]
    late = [float(r["held_out_loss"]) for r in apart if int(r["step"]) >= config().adaptation().schedule(12)[-1]]
    order = torch.randperm(40, generator=random.generator(0, "held out"))[:8].sort().values
    loss = held_out_loss(best, pictures().train[order], None, config(), World())
    assert loss == pytest.approx(min(late), rel=1e-5)
    assert len(best.history) == len(model.history)


class Stop(Exception):
    pass


def test_resumed_runs_are_whole(run: tuple[Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; the log has each step once, and time goes on."""
    snapshot = room.RunFolder.snapshot

    def stop(self: room.RunFolder, step: int, model: Model) -> None:
        snapshot(self, step, model)
        if step == 10:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(room.RunFolder, "snapshot", stop)
        with pytest.raises(Stop):
            train(config(), tmp_path, data=pictures())
    with (tmp_path / "log.csv").open("a") as file:
        file.write("11,88,1.0,,0.5,,,,\n11,8")  # a step that is done again, and a torn line
    with pytest.raises(ValueError, match=r"^out='.*': holds a run; --resume goes on with it"):
        train(config(), tmp_path, data=pictures())
    model = train(config(), tmp_path, data=pictures(), resume=True)
    assert torch.equal(weights(model), weights(run[1]))
    found = rows(tmp_path)
    assert [(r["step"], r["loss"], r["held_out_loss"]) for r in found] == [
        (r["step"], r["loss"], r["held_out_loss"]) for r in rows(run[0])
    ]
    seconds = [float(r["seconds"]) for r in found]
    assert seconds == sorted(seconds)
    assert (tmp_path / "best.safetensors").exists()


def test_changed_settings_are_named(run: tuple[Path, Model], tmp_path: Path) -> None:
    for name in ("checkpoint.safetensors", "log.csv"):
        (tmp_path / name).write_bytes((run[0] / name).read_bytes())
    with pytest.raises(ValueError, match=r"other settings \(batch_size: 8 -> 4; learning_rate: 0.003 -> 0.001\)$"):
        train(config(batch_size=4, learning_rate=1e-3), tmp_path, data=pictures(), resume=True)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors.*is damaged"):
        train(config(), tmp_path, data=pictures(), resume=True)


def test_a_refused_resume_changes_nothing(run: tuple[Path, Model], tmp_path: Path) -> None:
    """Settings and log stay those of the run, which can still be resumed."""
    shutil.copytree(run[0], tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("*.*")}
    with pytest.raises(ValueError, match=r"other settings \(batch_size: 8 -> 4\)$"):
        train(config(batch_size=4), tmp_path / "run", data=pictures(), resume=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").glob("*.*")} == before
    train(config(), tmp_path / "run", data=pictures(), resume=True)


@pytest.mark.parametrize("part", ["sheet", "save", "row"])
@pytest.mark.parametrize("step", [5, 12])
def test_a_snapshot_cut_short_is_made_by_the_resume(
    part: str, step: int, run: tuple[Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one too, without which there is no final model; what is whole is not made again."""
    owner, name = {"sheet": (room.RunFolder, "sheet"), "save": (Model, "save"), "row": (logs.Log, "row")}[part]
    before, calls = getattr(owner, name), []

    def stop(self: Any, *arguments: Any, **cells: Any) -> Any:
        calls.append(1)
        snapshot = "loss" not in cells and (tmp_path / "checkpoint.safetensors").exists()
        if snapshot and checkpoints.step_of(tmp_path / "checkpoint.safetensors") == step:
            raise Stop
        return before(self, *arguments, **cells)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(Stop):
            train(config(), tmp_path, data=pictures())
    model = train(config(), tmp_path, data=pictures(), resume=True)
    assert torch.equal(weights(load(tmp_path / "model.safetensors")), weights(run[1]))
    for file in ("model.safetensors", "best.safetensors", *(f"samples/{s:08d}.png" for s in (5, 10, 12))):
        assert (tmp_path / file).read_bytes() == (run[0] / file).read_bytes(), file
    names = ("step", "loss", "held_out_loss", "stiffness_max")
    assert [[r[n] for n in names] for r in rows(tmp_path)] == [[r[n] for n in names] for r in rows(run[0])]
    (tmp_path / "samples" / "00000012.png").unlink()
    assert torch.equal(weights(train(config(), tmp_path, data=pictures(), resume=True)), weights(model))
    assert not (tmp_path / "samples" / "00000012.png").exists()


def test_two_at_once(tmp_path: Path) -> None:
    with (
        files.alone(tmp_path / "run", ""),
        pytest.raises(ValueError, match=r"^out='.*run': another process trains there"),
    ):
        train(config(), tmp_path / "run", data=pictures())
    assert list((tmp_path / "run").iterdir()) == []


def test_a_disk_too_full_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = sum(p.numel() for p in config().build((1, 4, 4), 0).parameters())
    free = SimpleNamespace(free=parameters * (16 * 3 + 12) - 1)  # keep = 2, and one that is being written
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError, match=r"^out='.*': the run writes .* GB, more than is free there$"):
        train(config(), tmp_path, data=pictures())
    assert list(tmp_path.iterdir()) == []
    free.free += 1
    train(config(steps=1, grid=0, method="CLD"), tmp_path, data=pictures())


@pytest.mark.parametrize(
    "fields",
    [
        {"conditional": True, "flips": True},
        {"conditional": True, "context_dropout": 0.2, "guidance": 2.0},
        {"method": "VSCLD", "variational_score": "steered", "beta": 2.0, "prior": "moments"},
        {"method": "SGM", "grid": 0, "held_out": 0},
        {"precision": "bfloat16", "channels_last": True, "accumulate": 2},
    ],
)
def test_kinds_of_runs(fields: dict[str, Any], tmp_path: Path) -> None:
    data = pictures(labels=True)
    model = train(config(steps=4, every=4, **fields), tmp_path, data=data)
    assert bool(torch.isfinite(weights(model)).all())
    assert (tmp_path / "samples").exists() == ("grid" not in fields)
    assert (tmp_path / "best.safetensors").exists() == ("held_out" not in fields)


def test_bad_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^held_out=39: must be at most 38"):
        train(config(held_out=39), tmp_path, data=pictures())
    with pytest.raises(ValueError, match=r"^conditional=True: corners has no labels$"):
        train(config(conditional=True), tmp_path, data=pictures())
    with pytest.raises(ValueError, match=r"^batch_size=8: must be a multiple of 3"):
        train(config(accumulate=3), tmp_path, data=pictures())
    with pytest.raises(ValueError, match=r"^images='cifar11': .*did you mean 'cifar10'"):
        train(config(images="cifar11"), tmp_path)
    assert list(tmp_path.iterdir()) == [] or not (tmp_path / "checkpoint.safetensors").exists()


def test_lengths_of_time() -> None:
    found = [duration(s) for s in (3.4, 119, 720, 7_500, 259_200)]
    assert found == ["3 s", "119 s", "12 min", "2 h 05 min", "3.0 days"]


# --- several processes ------------------------------------------------------------------------------------------------


class Apart(World):
    """One of several processes, whose sums are left to the test."""

    def total(self, value: torch.Tensor) -> torch.Tensor:
        return value


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_drawing_and_the_looking(run: tuple[Path, Model], size: int) -> None:
    """Their parts are those of one process, and add up to it."""
    worlds = [Apart(rank, size) for rank in range(size)]
    painter = Painter(run[1], evaluations=4)
    parts = [together(painter, range(5), None, world) for world in worlds]
    alone = together(painter, range(5), None, World())
    assert int((sum(p.int() for p in parts) - alone.int()).abs().max()) <= 1
    values = torch.cat([pictures().train] * 4)  # 160: three parts
    losses = [held_out_loss(run[1], values, None, config(), world) for world in worlds]
    assert sum(losses) == pytest.approx(held_out_loss(run[1], values, None, config(), World()), rel=1e-6)
