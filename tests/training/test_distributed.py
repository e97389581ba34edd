"""vsmd.training.distributed: two processes give the parameters of one, resume each other's runs, and stop together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from vsmd import Adaptation, Model, fit, forward_process
from vsmd.networks.mlp import MLP
from vsmd.training import Compute, adapting, levels
from vsmd.training.distributed import World, launched

STEPS = 20
HOW = Adaptation(rounds=4, paths=50, nodes=5)


class Interrupted(Exception):
    """Ends a run in the middle."""


def source(until: int = 10**9) -> Callable[[int, torch.Generator], Tensor]:
    """Two stretched clusters; ends the run at a batch."""
    batches = 0

    def draw(n: int, generator: torch.Generator) -> Tensor:
        nonlocal batches
        batches += n == 24
        if batches > until:
            raise Interrupted
        sign = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
        return torch.tensor([1.0, 8.0]) * (sign + 0.3 * torch.randn(n, 2, generator=generator))

    return draw


def run(
    until: int = 10**9, data: Tensor | None = None, method: str = "VSULD", matching: str = "hybrid", **arguments: Any
) -> Model:
    torch.manual_seed(dist.get_rank() if dist.is_initialized() else 0)  # the first process's weights are everybody's
    network = MLP((2,), width=12, depth=2, frequencies=4)
    process = forward_process(method, (2,), score_matching=matching)
    settings: dict[str, Any] = {"steps": STEPS, "batch_size": 24, "seed": 5, "adaptation": HOW, "ema": 0.9}
    return fit(process, source(until) if data is None else data, network=network, **settings | arguments)


def state(model: Model) -> dict[str, Tensor]:
    return {"a_x": model.process.a_x.contiguous(), **{k: v.clone() for k, v in model.network.state_dict().items()}}


def scenarios(folder: Path) -> dict[str, dict[str, Tensor]]:
    """What both processes run, in one launch: importing torch costs more than all of it."""
    part = folder / "part.safetensors"
    found = {"whole": state(run()), "plain": state(run(matching="plain"))}
    found["accumulated"] = state(run(compute=Compute(accumulate=2)))
    try:
        run(until=12, checkpoint=part, checkpoint_every=5)
    except Interrupted:
        World.current().wait()
    found["resumed"] = state(run(checkpoint=folder / "one.safetensors"))  # begun by one process
    adapting.PART = 2 * 16  # several parts, shared out
    levels.TABLE = 1  # and levels from a table
    found["parts"] = state(run())
    return found


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, tensors in scenarios(folder).items():
        save_file(tensors, folder / f"{name}-{rank}.safetensors")
    begun = folder / f"begun-{rank}"
    try:
        run(steps=10**6, checkpoint=folder / "stopped.safetensors", on_loss=lambda *_: begun.touch())
    except KeyboardInterrupt:
        (folder / f"stopped-{rank}").touch()
    for name, arguments in unlike(rank).items():
        try:
            run(**arguments)
        except ValueError as error:
            (folder / f"unlike-{name}-{rank}").write_text(str(error))
    dist.destroy_process_group()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "VSMD_TIMEOUT": "4"}
    try:
        with launched("cpu"):
            World.current().wait()
            if rank == 1:
                signal.raise_signal(signal.SIGSTOP)
            World.current().wait()
    except TimeoutError as error:
        (folder / "alone").write_text(str(error))


def unlike(rank: int) -> dict[str, dict[str, Any]]:
    """Arguments of runs whose processes have been given other data, other settings, the same data in another order."""
    data = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    return {
        "data": {"data": data + 10 * rank},
        "spread": {"data": data * (1 + 1e-4 * rank)},
        "mirrored": {"data": torch.cat([data, -data]) * (1 + 9 * rank)},  # no mean tells them apart
        "settings": {"data": data, "learning_rate": 1e-3 * (1 + rank), "ema": 0.5 + 0.1 * rank},
        "method": {"data": data, "method": ("CLD", "ULD")[rank]},
        "order": {"data": data.flip(0) if rank else data},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes over gloo; then one of them alone gets a Ctrl-C."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.raises(Interrupted):
        run(until=12, checkpoint=folder / "one.safetensors", checkpoint_every=5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(2):
        code = f"from test_distributed import *; worker({rank}, Path({str(folder)!r}))"
        children.append(subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, env=env))
    try:
        deadline = time.monotonic() + 900
        while not (folder / "begun-1").exists() and time.monotonic() < deadline:
            assert all(child.poll() is None for child in children)
            time.sleep(0.05)
        children[1].send_signal(signal.SIGINT)
        assert children[0].wait(300) == 0
    finally:
        for child in children:
            child.kill()
    return folder


def of_rank(folder: Path, name: str, rank: int) -> dict[str, Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


def assert_close(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert float((one[name] - two[name]).abs().max()) <= tolerance, name


@pytest.mark.parametrize("name", ["whole", "plain", "accumulated", "resumed", "parts"])
def test_both_processes_hold_the_same_bits(folder: Path, name: str) -> None:
    one, two = (of_rank(folder, name, rank) for rank in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", ["whole", "accumulated", "resumed"])
def test_two_processes_equal_one(folder: Path, name: str) -> None:
    """At the same global batch, A adapted on the way; in micro-batches and begun by one process alike."""
    alone = state(run())
    assert float((alone["a_x"] - alone["a_x"][:, :1]).abs().max()) > 0.01  # A moved, and differently
    assert_close(of_rank(folder, name, 0), alone)


def test_plain_score_matching(folder: Path) -> None:
    assert_close(of_rank(folder, "plain", 0), state(run(matching="plain")))


def test_simulations_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "PART", 2 * 16)
    monkeypatch.setattr(levels, "TABLE", 1)
    assert_close(of_rank(folder, "parts", 0), state(run()))


def test_one_process_goes_on_with_the_run_of_two(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    path.write_bytes((folder / "part.safetensors").read_bytes())
    assert_close(state(run(checkpoint=path)), state(run()))


def test_a_signal_to_one_stops_and_saves_all(folder: Path) -> None:
    assert (folder / "stopped-0").exists()
    assert (folder / "stopped-1").exists()
    steps = {int(v) for k, v in load_file(folder / "stopped.safetensors").items() if k.endswith(".step")}
    assert len(steps) == 1
    assert 50 <= steps.pop() < 10**6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data", r"^data \(mean \S+ to 1\S+, std \S+ to \S+\): differ between the 2 processes; all must"),
        ("spread", r"^data \(mean \S+ to \S+, std \S+ to \S+\): differ between the 2 processes"),
        ("mirrored", r"^data \(mean \S+ to \S+, std \S+ to \S+\): differ between the 2 processes"),
        ("settings", r"^learning_rate, ema: differ between the 2 processes; all must be given the same$"),
        ("method", r"^process: differ between the 2 processes"),
    ],
)
def test_processes_that_were_given_different_things(folder: Path, name: str, message: str) -> None:
    """All of them say so, before the first step."""
    for rank in range(2):
        assert re.match(message, (folder / f"unlike-{name}-{rank}").read_text())


def test_the_same_data_in_another_order_will_do(folder: Path) -> None:
    assert not list(folder.glob("unlike-order-*"))


def test_a_stopped_process_is_not_waited_for(folder: Path) -> None:
    assert (folder / "alone").read_text() == "another process has not answered for 4 s (VSMD_TIMEOUT)"


# --- alone ------------------------------------------------------------------------------------------------------------


def test_alone() -> None:
    world = World.current()
    assert (world.rank, world.size, world.first) == (0, 1, True)
    assert world.rows(7) == slice(0, 7)
    x = torch.tensor([1.0, 2.0])
    assert world.total(x) is x
    assert world.shared(x) is x
    assert world.largest(-3) == -3
    assert world.mean(torch.tensor(0.5)) == 0.5


def test_rows_cover_the_batch() -> None:
    assert [World(r, 4).rows(12) for r in range(4)] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({}, "cuda:99", r"^device='cuda:99': not on this machine"),
        ({}, "gpu", r"^device='gpu': not on this machine"),
        ({"WORLD_SIZE": "1.5"}, "cpu", r"^WORLD_SIZE='1.5': must be an integer"),
        ({"WORLD_SIZE": "-2"}, "cpu", r"^WORLD_SIZE='-2': must be an integer"),
        ({"WORLD_SIZE": "0"}, "cpu", r"^WORLD_SIZE=0: must be an integer >= 1"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "cpu", r"^LOCAL_RANK='x': must be an integer"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "cpu", r"^RANK='': must be an integer"),
        (
            {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0", "VSMD_TIMEOUT": "soon"},
            "cpu",
            r"^VSMD_TIMEOUT='soon': must be an integer",
        ),
        ({"WORLD_SIZE": "99", "LOCAL_RANK": "98", "RANK": "98"}, "cuda", r"^nproc_per_node=99 or more: must be"),
    ],
)
def test_bad_launches(environment: dict[str, str], device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as error, launched(device):
        pass
    assert "\n" not in str(error.value)


def test_launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched("cpu") as device:
        assert device == torch.device("cpu")
        assert not dist.is_initialized()


def test_batch_that_processes_cannot_share() -> None:
    with pytest.raises(ValueError, match=r"^batch_size=24: must be a multiple of 5, processes \(1\) times"):
        run(compute=Compute(accumulate=5))
