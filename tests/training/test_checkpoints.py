"""Resuming is invisible: interrupted anywhere, even killed, a run ends in the same bits as one left alone."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vsmd import Adaptation, BetaSchedule, Model, files, fit, forward_process
from vsmd.networks.mlp import MLP
from vsmd.training import checkpoints
from vsmd.training.stopping import Held
from vsmd.training.trainer import Trainer

STEPS = 120


class Interrupted(Exception):
    """Stands for anything that ends a run."""


class Source:
    """Two stretched clusters; counts its batches and ends the run at one of them."""

    def __init__(self, until: int = 10**9) -> None:
        self.until, self.batches = until, 0

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        if n == 24:  # a batch, not the draw for the moments
            self.batches += 1
            if self.batches > self.until:
                raise Interrupted
        sign = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
        return torch.tensor([1.0, 6.0]) * (sign + 0.3 * torch.randn(n, 2, generator=generator))


def run(path: Path | None, source: Any = None, method: str = "VSULD", **arguments: Any) -> Model:
    """One and the same run, from the start or from where `path` stands."""
    torch.manual_seed(0)
    network = MLP((2,), width=arguments.pop("width", 12), depth=2, frequencies=4)
    settings: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 24,
        "seed": 5,
        "adaptation": Adaptation(rounds=6, paths=60, nodes=5),
        "checkpoint_every": 20,
    }
    process = forward_process(
        method, (2,), **{k: arguments.pop(k) for k in ("beta", "damping", "variational_score") if k in arguments}
    )
    return fit(
        process, Source() if source is None else source, network=network, checkpoint=path, **settings | arguments
    )


def assert_same(one: Model, two: Model) -> None:
    for p, q in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(p, q)
    assert one.history == two.history
    assert torch.equal(one.process.a_x, two.process.a_x)
    assert torch.equal(one.sample(6, steps=4), two.sample(6, steps=4))
    assert torch.equal(one.sample(6, solver="euler-maruyama", steps=4), two.sample(6, solver="euler-maruyama", steps=4))


def interrupted(path: Path, after: int, **arguments: Any) -> None:
    """A run ended in the middle of step after + 1."""
    with pytest.raises(Interrupted):
        run(path, Source(after), **arguments)


def step_of(path: Path) -> int:
    """The step that a checkpoint stands at, from the optimiser's own count."""
    return int(max(v.max() for k, v in load_file(path).items() if k.startswith("optimizer.") and k.endswith(".step")))


@pytest.fixture(scope="module")
def whole() -> Model:
    """The run left alone."""
    return run(None)


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7, 30, 50])
@pytest.mark.parametrize("after", [51, 64, 101])
def test_resume_is_bit_exact(whole: Model, every: int, after: int, tmp_path: Path) -> None:
    """Checkpoints lie at every multiple of `checkpoint_every`, and the resumed run does only the steps after it."""
    path = tmp_path / "run.safetensors"
    interrupted(path, after, checkpoint_every=every)
    stands = after // every * every
    assert step_of(path) == stands
    source = Source()
    resumed = run(path, source, checkpoint_every=every)
    assert source.batches == STEPS - stands
    assert_same(resumed, whole)


@pytest.mark.parametrize("method", ["CLD", "VSCLD", "VSDM", "SGM"])
def test_every_method_resumes(method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    interrupted(path, 70, method=method, checkpoint_every=50)
    assert_same(run(path, method=method, checkpoint_every=50), run(None, method=method))


def test_interrupted_twice(whole: Model, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    interrupted(path, 55, checkpoint_every=50)
    interrupted(path, 54, checkpoint_every=50)
    assert step_of(path) == 100
    assert_same(run(path, checkpoint_every=50), whole)


def test_checkpoints_change_nothing(whole: Model, tmp_path: Path) -> None:
    """Nor does the order of settings that have no say: progress, how often to save."""
    assert_same(
        run(tmp_path / "run.safetensors", checkpoint_every=50, snapshots=[3, 77], on_snapshot=lambda *_: None), whole
    )
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]  # nothing temporary is left


def test_finished_run_returns_at_once(whole: Model, tmp_path: Path) -> None:
    path, source = tmp_path / "run.safetensors", Source()
    run(path)
    before = path.read_bytes()
    assert_same(run(path, source), whole)
    assert source.batches == 0
    assert path.read_bytes() == before


def test_a_resume_makes_the_snapshot_that_it_goes_on_from(whole: Model, tmp_path: Path) -> None:
    """It may have been cut short, the last one too; those before are not repeated."""
    path = tmp_path / "run.safetensors"
    interrupted(path, 60, checkpoint_every=50)
    seen: list[int] = []

    def look(step: int, model: Model) -> None:
        seen.append(step)
        if step == STEPS:
            raise Interrupted

    arguments: dict[str, Any] = {"checkpoint_every": 50, "snapshots": [10, 50, 51, STEPS], "on_snapshot": look}
    with pytest.raises(Interrupted):
        run(path, **arguments)
    assert seen == [50, 51, STEPS]
    models: list[Model] = []
    run(path, **arguments | {"on_snapshot": lambda _, model: models.append(model)})
    assert len(models) == 1
    assert_same(models[0], whole)


def test_on_start_is_told_what_has_been_accepted(tmp_path: Path) -> None:
    path, seen = tmp_path / "run.safetensors", list[int]()
    with pytest.raises(Interrupted):
        run(path, Source(33), on_start=seen.append)
    with pytest.raises(ValueError, match="seed: 5 -> 6"):
        run(path, seed=6, on_start=seen.append)
    run(path, on_start=seen.append)
    assert seen == [0, 20]


LONG = 300


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """kill -9 some time after the first checkpoint: the file is whole, and the run ends as one left alone."""
    path = tmp_path / "run.safetensors"
    code = f"from test_checkpoints import *; run(Path({str(path)!r}), steps=LONG, checkpoint_every=50)"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, env=env)
    try:
        deadline = time.monotonic() + 300
        while not path.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.1 * random.random())
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    stands = step_of(path)
    assert stands % 50 == 0
    assert 0 < stands <= LONG
    source = Source()
    resumed = run(path, source, steps=LONG, checkpoint_every=50)
    assert source.batches == LONG - stands
    assert_same(resumed, run(None, steps=LONG))


# --- more steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CLD", "VSULD"])
def test_more_steps_go_on(method: str, tmp_path: Path) -> None:
    """From a finished run's checkpoint, as if it had been the longer one from there, and that resumes bit for bit."""
    path, source = tmp_path / "run.safetensors", Source()
    short = run(path, method=method, steps=40)
    longer = run(path, source, method=method, steps=80)
    assert source.batches == 40
    assert not torch.equal(longer.sample(6, steps=4), short.sample(6, steps=4))
    assert step_of(path) == 80
    again = tmp_path / "again.safetensors"
    run(again, method=method, steps=40)
    interrupted(again, 25, method=method, steps=80)
    assert step_of(again) == 60
    assert_same(run(again, method=method, steps=80), longer)
    rounds = Adaptation(rounds=6, paths=60, nodes=5).schedule(80)
    assert [row["step"] for row in longer.history if row["step"] > 40] == [
        step for step in rounds if step > 40 and method == "VSULD"
    ]


def test_the_rate_goes_on_as_the_longer_run_has_it(tmp_path: Path) -> None:
    """Its cosine at step 40 of 80, one half, where the short run's was down to nothing; constant: no difference."""
    path = tmp_path / "run.safetensors"
    run(path, steps=40, schedule="constant", method="CLD")
    assert_same(
        run(path, steps=80, schedule="constant", method="CLD"), run(None, steps=80, schedule="constant", method="CLD")
    )
    trainer = Trainer(
        forward_process("CLD", (2,)), Source(), None, steps=80, batch_size=24, learning_rate=0.25, schedule="cosine",
        ema=0.9, clip=1.0, adaptation=None, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    trainer.step = 40
    trainer.advance()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.125)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(path: Path, **arguments: Any) -> str:
    """The one line with which a checkpoint is refused; the file stays as it was."""
    before = path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as error:
        run(path, **arguments)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    return str(error.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "run.safetensors"
    run(path, steps=20)
    return path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": 6}, r"seed: 5 -> 6"),
        ({"steps": 10}, r"steps: 20 -> 10"),
        ({"batch_size": 25}, r"batch_size: 24 -> 25"),
        ({"learning_rate": 0.5}, r"learning_rate: \S+ -> 0.5"),
        ({"schedule": "step"}, r"schedule: 'cosine' -> 'step'"),
        ({"ema": 0.5}, r"ema: \S+ -> 0.5"),
        ({"clip": 0.25}, r"clip: \S+ -> 0.25"),
        ({"adaptation": Adaptation(rounds=9)}, r"adaptation: .*'rounds': 6.* -> .*'rounds': 9"),
        ({"beta": BetaSchedule(0.1, 10.0)}, r"process: .*'b_min': 5.0.* -> .*'b_min': 0.1"),
        ({"damping": 0.5}, r"process: .*'damping': 0.7.* -> .*'damping': 0.5"),
        ({"method": "VSCLD"}, r"process: .*'VSULD'.* -> .*'VSCLD'"),
        ({"seed": 6, "ema": 0.5}, r"ema: .*; seed: "),
    ],
)
def test_changed_settings_are_named(finished: Path, arguments: dict[str, Any], named: str) -> None:
    message = refused(finished, **{"steps": 20} | arguments)
    assert re.search(named, message), message


def test_another_network_is_named(finished: Path) -> None:
    assert "network" in refused(finished, steps=20, width=13)


def test_another_score_by_hand_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run(path, steps=20, variational_score=-0.1)
    assert "variational_score" in refused(path, steps=20, variational_score=-0.9)


def test_other_data_are_named(finished: Path) -> None:
    data = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) * 40
    assert "data" in refused(finished, steps=20, source=data)


@pytest.mark.parametrize("change", ["a late column", "small numbers", "none", "an older file"])
def test_other_data_are_seen_wherever_they_differ(change: str, tmp_path: Path) -> None:
    """Beyond the first directions and below the sixth decimal too: black margins are the same in all pictures."""
    path, data = tmp_path / "run.safetensors", torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    data[:, :8] = 0
    data = 1e-8 * data if change == "small numbers" else data
    other = data if change in ("none", "an older file") else data.clone()
    other[:, 11:] *= 1 if other is data else 3
    process = forward_process("CLD", (12,))
    settings: dict[str, Any] = {"batch_size": 8, "checkpoint": path, "seed": 0}
    fit(process, data, steps=2, **settings)
    if change == "an older file":
        tensors, info = files.read(path, checkpoints.FORMAT)
        info["settings"]["data"] = [0.0, 1.0]  # moments of a few directions
        files.write(path, checkpoints.FORMAT, tensors, info)
    if other is data:
        assert fit(process, other, steps=4, **settings).process.dim == 12
        return
    with pytest.raises(ValueError, match=r"was written with other settings \(data: '\S+ \S+ \S+' -> '\S+ \S+ \S+'\)$"):
        fit(process, other, steps=4, **settings)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_checkpoint(finished: Path, share: float, tmp_path: Path) -> None:
    path, content = tmp_path / "run.safetensors", finished.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(path, steps=20)


def test_a_model_is_no_checkpoint(whole: Model, tmp_path: Path) -> None:
    path = whole.save(tmp_path / "run.safetensors")
    assert "vsmd-model-2" in refused(path)


def test_foreign_checkpoint(finished: Path, tmp_path: Path) -> None:
    """Of another program, or of ours with tensors missing."""
    path = tmp_path / "run.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    refused(path, steps=20)
    with safe_open(finished, framework="pt") as file:
        metadata = file.metadata()
    tensors = {k: v for k, v in load_file(finished).items() if not k.startswith("average.last")}
    save_file(tensors, path, metadata)
    refused(path, steps=20)


@pytest.mark.parametrize("change", [
    {"settings": 3}, {"step": None}, {"history": 3}, {"step": "x"}, {"step": -1}, {"step": 21}, {"step": 2.5},
])  # fmt: skip
def test_a_checkpoint_that_cannot_be(finished: Path, change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    tensors, info = files.read(finished, checkpoints.FORMAT)
    files.write(path, checkpoints.FORMAT, tensors, info | change)
    assert "damaged or foreign" in refused(path, steps=20)
    tensors["network.last.bias"][0] = float("nan")
    files.write(path, checkpoints.FORMAT, tensors, info)
    assert "network.last.bias has NaN or inf" in refused(path, steps=20)


def test_rates_of_another_shape(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    tensors, info = files.read(finished, checkpoints.FORMAT)
    files.write(path, checkpoints.FORMAT, tensors | {"stiffness": torch.ones(1, 3)}, info)
    assert "stiffness is (1, 3); must be (1, 2)" in refused(path, steps=20)


def test_numbers_of_other_libraries(tmp_path: Path) -> None:
    """numpy integers and floats are numbers too, also where settings are written down."""
    np = pytest.importorskip("numpy")
    path = tmp_path / "run.safetensors"
    process = forward_process("VSULD", (2,), beta=BetaSchedule(np.float32(1), np.int64(5)))
    how = Adaptation(rounds=np.int64(2), paths=20, nodes=4)
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {"steps": np.int64(4), "batch_size": np.int64(3), "learning_rate": np.float32(0.25)}
    model = fit(process, data, adaptation=how, checkpoint=path, seed=np.int64(1), **arguments)
    assert path.exists()
    model.save(tmp_path / "model.safetensors")


# --- several kept -----------------------------------------------------------------------------------------------------


def test_the_last_are_kept(whole: Model, tmp_path: Path) -> None:
    """Under their steps, each a whole checkpoint that the run can go on from."""
    path = tmp_path / "run.safetensors"
    interrupted(path, 65, checkpoint_every=10, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "run-00000040.safetensors",
        "run-00000050.safetensors",
        "run.safetensors",
    ]
    assert step_of(path) == 60
    assert step_of(tmp_path / "run-00000040.safetensors") == 40
    interrupted(path, 15, checkpoint_every=10, keep=3)
    assert [step_of(p) for p in checkpoints.earlier(path)] == [60, 50]
    path.unlink()
    checkpoints.earlier(path)[0].rename(path)
    assert_same(run(path), whole)


def test_the_one_before_a_damaged_one_is_offered(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    interrupted(path, 35, checkpoint_every=10, keep=2)
    path.write_bytes(path.read_bytes()[:1000])
    assert "the one before it is " + repr(str(tmp_path / "run-00000020.safetensors")) in refused(path)


def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    done: list[str] = []

    def full(tensors: dict[str, Tensor], target: str, *rest: Any) -> None:
        if done:
            Path(target).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(target)
        save_file(tensors, target, *rest)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"not be written at step 40 \(.*No space left.*\); the checkpoint before it"):
        run(path, checkpoint_every=20)
    assert step_of(path) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


# --- signals ----------------------------------------------------------------------------------------------------------


class Signalling(Source):
    """Sends this process a signal in the middle of a batch."""

    def __init__(self, number: int, at: int) -> None:
        super().__init__()
        self.number, self.at = number, at

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        x = super().__call__(n, generator)
        if n == 24 and self.batches == self.at:
            signal.raise_signal(self.number)
        return x


class Terminated(Exception):
    """What this test's handler of SIGTERM raises."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_before_it_stops(whole: Model, number: int, tmp_path: Path) -> None:
    """The step that it falls into is finished and saved; then it does what it would have done."""
    path = tmp_path / "run.safetensors"

    def handler(*_: object) -> None:
        raise Terminated

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(Terminated):
            run(path, Signalling(number, at=33), checkpoint_every=1_000)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        for s, old in before.items():
            signal.signal(s, old)
    assert step_of(path) == 33
    assert_same(run(path), whole)


def test_losses_are_told_as_without_the_stop(tmp_path: Path) -> None:
    """Those of the steps before a signal are part of the mean that comes after it."""
    calm, broken = list[tuple[int, float]](), list[tuple[int, float]]()
    run(tmp_path / "calm.safetensors", checkpoint_every=15, on_loss=lambda *told: calm.append(told))
    path = tmp_path / "run.safetensors"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(path, Signalling(signal.SIGINT, at=33), checkpoint_every=15, on_loss=lambda *told: broken.append(told))
    finally:
        signal.signal(signal.SIGINT, before)
    assert step_of(path) == 33
    run(path, checkpoint_every=15, on_loss=lambda *told: broken.append(told))
    assert [step for step, _ in calm][:4] == [15, 30, 45, 50]
    assert broken == calm


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_the_last_callback_takes_effect(number: int, tmp_path: Path) -> None:
    """All is saved by then, and the call is not cut short."""
    path, seen = tmp_path / "run.safetensors", list[int]()

    def handler(*_: object) -> None:
        raise Terminated

    def look(step: int, model: Model) -> None:
        signal.raise_signal(number)
        seen.append(step)

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(Terminated):
            run(path, steps=40, snapshots=[40], on_snapshot=look)
    finally:
        for s, old in before.items():
            signal.signal(s, old)
    assert seen == [step_of(path)] == [40]


def test_without_a_checkpoint_signals_are_left_alone() -> None:
    def handler(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        source = Signalling(signal.SIGTERM, at=5)
        with pytest.raises(Terminated):
            run(None, source)
        assert source.batches == 5
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_takes_effect_at_once() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        with Held(True) as held:
            signal.raise_signal(signal.SIGINT)
            assert held.caught == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with Held(True, patient=True) as held:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert held.caught == signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_contexts_are_refused(tmp_path: Path) -> None:
    """The moments of a permutation are the same, and the labels another lesson."""
    x, labels = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    path, process = tmp_path / "run.safetensors", forward_process("CLD", (2,))
    options: dict[str, Any] = {"batch_size": 16, "checkpoint": path}
    fit(process, (x, labels), steps=4, **options)
    fit(process, (x, labels.numpy()), steps=6, **options)
    for other in (labels.flip(0), labels.roll(1)):
        with pytest.raises(ValueError, match=r"was written with other settings \(context: '\w+' -> '\w+'\)$"):
            fit(process, (x, other), steps=8, **options)
    tensors, info = files.read(path, checkpoints.FORMAT)
    del info["settings"]["context"]
    files.write(path, checkpoints.FORMAT, tensors, info)  # as it was before contexts were noted
    assert fit(process, (x, labels), steps=8, **options).process.method == "CLD"


def test_other_contexts_of_a_sampler_are_refused(tmp_path: Path) -> None:
    def draw(n: int, generator: torch.Generator, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, 2, generator=generator)
        return x, x[:, :1] + shift

    options: dict[str, Any] = {"batch_size": 16, "checkpoint": tmp_path / "run.safetensors"}
    fit(forward_process("CLD", (2,)), draw, steps=2, **options)
    network = fit(forward_process("CLD", (2,)), draw, steps=3, **options).network
    with pytest.raises(ValueError, match=r"context: '\w+' -> '\w+'"):
        fit(forward_process("CLD", (2,)), lambda n, g: draw(n, g, 0.5), network=network, steps=4, **options)
