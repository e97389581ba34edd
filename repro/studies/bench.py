"""`make bench`: what our code costs on top of the bare network or against a peer, as ratios measured in one run."""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vsmd
import vsmd.images
from repro.grid.runs import Result
from repro.studies.recurrent import Recurrent
from repro.studies.sets.toys import toy
from repro.studies.throughput import bare_step
from repro.studies.windows import Windows
from vsmd import kernels, random
from vsmd.forecasting.predictor import VSMDPredictor
from vsmd.forecasting.series import Series
from vsmd.images.pictures import Pictures
from vsmd.networks.mlp import MLP
from vsmd.samplers import as_solver, make_solver, time_grid
from vsmd.samplers.base import no_noise
from vsmd.training.data import Data
from vsmd.training.distributed import launched
from vsmd.training.trainer import Trainer


def paired(ours: Callable[[], object], reference: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both and the median of their ratio, timed alternately so that both see the same machine."""
    ours(), reference()
    pairs = []
    for _ in range(rounds):
        begin = time.perf_counter()
        ours()
        middle = time.perf_counter()
        reference()
        pairs.append((middle - begin, time.perf_counter() - middle))
    first, second = zip(*pairs)
    return statistics.median(first), statistics.median(second), statistics.median(a / b for a, b in pairs)


def trainer_of(process: vsmd.ForwardProcess, data: Data, network: nn.Module, batch_size: int) -> Trainer:
    """A training that is far from its adaptation of A, with the settings that every bench has."""
    return Trainer(
        process, data, network, steps=10_000, batch_size=batch_size, learning_rate=1e-3, schedule="cosine", ema=0.999,
        clip=1.0, adaptation=vsmd.Adaptation(begin=0.9, end=1.0), seed=0, device=torch.device("cpu"),
    )  # fmt: skip


def bare_steps(network: nn.Module, arguments: tuple[Tensor, ...], target: Tensor, steps: int) -> Callable[[], object]:
    """A function that takes steps of the network alone, all on one batch: forward, backward and optimiser."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(*arguments), target).backward()
            optimizer.step()

    return run


def train_step(rounds: int) -> tuple[float, float, float]:
    """Ten training steps (batch 1,024, MLP 6 x 256) against forward, backward and optimiser of the bare network."""
    network = MLP((2,), width=256, depth=6)
    trainer = trainer_of(vsmd.forward_process("VSULD", (2,)), toy("spiral-8Y"), network, 1024)
    z, log_snr, target = torch.randn(3, 1024, 2, generator=random.generator(0, "bench"))
    reference = bare_steps(MLP((2,), width=256, depth=6), (z, log_snr), target, 10)
    return paired(lambda: [trainer.advance() for _ in range(10)], reference, rounds)


def solver_step(rounds: int) -> tuple[float, float, float]:
    """A Heun step of 20,000 paths against its two calls of the bare network (MLP 6 x 256)."""
    network = MLP((2,), width=256, depth=6)
    process = vsmd.forward_process("VSULD", (2,)).with_moments(torch.zeros(2), torch.tensor([4.0, 350.0]))
    solver = make_solver("heun", vsmd.scores.Score(process, network), time_grid(10))
    a = torch.randn(20_000, 2, 2, generator=random.generator(0, "bench"))
    z, level = a[:, 0].contiguous(), torch.zeros(1, 2)
    with torch.no_grad():
        return paired(lambda: solver.step(a, 4, no_noise), lambda: (network(z, level), network(z, level)), rounds)


def forecaster(dim: int = 8, horizon: int = 30) -> tuple[Windows, Recurrent, list[Series]]:
    """The paper's forecaster of a panel of the exchange rates' shape, untrained, and a random walk to train it on."""
    walk = torch.randn(6_000, dim, generator=random.generator(0, "bench"), dtype=torch.float64).cumsum(0)
    series = [Series(walk + 1_000, 0, torch.zeros(len(walk) + horizon, 0), torch.zeros(0))]
    windows = Windows(3 * horizon, horizon, (1, 2), "D").fitted(series)
    return windows, Recurrent((dim,), windows.lags_seq, horizon, windows.features()), series


def forecast_train_step(rounds: int) -> tuple[float, float, float]:
    """Five training steps of the paper's forecaster, 32 windows, against the bare networks (LSTM and score)."""
    windows, network, series = forecaster()
    rows = 32 * windows.horizon
    trainer = trainer_of(vsmd.forward_process("VSULD", (8,)), windows.sampler(series), network, rows)
    batch = windows.sampler(series)(rows, random.generator(0, "bench"))
    assert isinstance(batch, tuple)
    x, context = batch
    reference = bare_steps(forecaster()[1], (x, torch.zeros(rows, 8), context), x, 5)
    return paired(lambda: [trainer.advance() for _ in range(5)], reference, rounds)


def forecast_sampling(rounds: int) -> tuple[float, float, float]:
    """Forecasts of 5 windows x 100 samples x 30 days, Heun in 5 steps a day, against their bare network calls."""
    windows, network, series = forecaster()
    process = vsmd.forward_process("VSULD", (8,)).with_moments(torch.zeros(8), torch.ones(8))
    model = vsmd.Model(process, network.eval())
    predictor = VSMDPredictor(model, windows, windows.horizon, "D", solver="heun", sampling_steps=5)
    ends = [len(series[0].values) - windows.horizon * w for w in range(5)]
    items = [{"start": "2000-01-03", "target": series[0].values[:end].T.numpy()} for end in ends]
    z, level = torch.randn(500, 8, generator=random.generator(0, "bench")), torch.zeros(1, 8)
    history = torch.randn(5, windows.history + windows.horizon, 8 + windows.features())
    bare = network.on_codes()
    calls = predictor.sampling_steps * as_solver(predictor.solver).evaluations + predictor.denoise

    def reference() -> None:
        inputs = network.inputs(history)
        _, state = network.read(inputs[:, : windows.context_length])
        state = (state[0].repeat_interleave(100, 1), state[1].repeat_interleave(100, 1))
        for day in range(windows.horizon):
            step = inputs[:, windows.context_length + day, None].repeat_interleave(100, 0)
            h, state = network.read(step, state)
            codes = network.code(h[:, 0])
            for _ in range(calls):
                bare(z, level, codes)

    with torch.no_grad():
        return paired(lambda: list(predictor.predict(items)), reference, rounds)


def matrix_exponential(tau: Tensor, s: Tensor, c: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Mean map and noise covariance of each coordinate from the exponential of Van Loan's 4 x 4 block matrix."""
    tau, s, c = torch.broadcast_tensors(tau, s, c)
    block = torch.zeros(*tau.shape, 4, 4, dtype=torch.float64)
    block[..., 0, 1] = 1.0
    block[..., 1, 0], block[..., 2, 3] = -s, s
    block[..., 1, 1], block[..., 3, 3] = -gamma * c, gamma * c
    block[..., 1, 3], block[..., 3, 2] = 2 * gamma, -1.0
    exponential = torch.linalg.matrix_exp(block * tau[..., None, None])
    mean = exponential[..., :2, :2]
    return mean, exponential[..., :2, 2:] @ mean.mT


def kernel(times: int, dim: int, rounds: int) -> tuple[float, float, float]:
    """The closed form of a process at `times` times x `dim` coordinates against 4 x 4 matrix exponentials."""
    stream = random.generator(0, "bench", times, dim)
    s = 0.5 + 10 * torch.rand(1, dim, generator=stream, dtype=torch.float64)
    c = (0.7 * s).sqrt()
    tau = 2.5 * (1e-3 + (1 - 1e-3) * torch.rand(times, 1, generator=stream, dtype=torch.float64))
    ours = kernels.Momentum(s, c, 2.0)
    mean, noise = matrix_exponential(tau, s, c, 2.0)
    closed_form = ours(tau)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(closed_form.mean[i][j], mean[..., i, j], rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(closed_form.noise[i][j], noise[..., i, j], rtol=1e-6, atol=1e-8)
    return paired(lambda: ours(tau), lambda: matrix_exponential(tau, s, c, 2.0), rounds)


def images_trainer() -> tuple[Trainer, Tensor]:
    """The trainer of `cifar10-small` (VSULD, batches of 64) on grey noise, and a batch of its input."""
    torch.set_num_threads(1)
    chosen, shape = vsmd.images.config("cifar10-small"), (3, 32, 32)
    values = torch.randint(256, (512, *shape), generator=random.generator(0, "bench"), dtype=torch.uint8)
    size, process = chosen.training.batch_size, chosen.process(shape)
    trainer = trainer_of(process, Pictures(values, flips=True), chosen.build(shape, 0), size)
    return trainer, torch.randn(size, *shape, generator=random.generator(0, "bench"))


def images_train_step(rounds: int) -> tuple[float, float, float]:
    """A training step of 64 images 3 x 32 x 32 against forward, backward and optimiser of the bare U-Net."""
    trainer, z = images_trainer()
    chosen = vsmd.images.config("cifar10-small")
    reference = bare_step(copy.deepcopy(trainer.network), chosen, len(z), tuple(z.shape[1:]))
    return paired(trainer.advance, reference, rounds)


def images_solver_step(rounds: int) -> tuple[float, float, float]:
    """A Heun step of 64 images 3 x 32 x 32 against its two calls of the bare U-Net."""
    trainer, z = images_trainer()
    network = trainer.average
    solver = make_solver("heun", vsmd.scores.Score(trainer.process, network), time_grid(10))
    a, image, level = torch.stack([z, z.flip(0)], 1), torch.cat([z, torch.zeros_like(z)], 1), torch.zeros(1)
    with torch.no_grad():
        return paired(
            lambda: solver.step(a, 4, no_noise), lambda: (network(image, level), network(image, level)), rounds
        )


def images_rate() -> None:
    """Print the seconds an image of training, of all processes that torchrun started; one thread each."""
    with launched("cpu"):
        trainer, _ = images_trainer()
        trainer.advance()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            trainer.advance()
            times.append(time.perf_counter() - begin)
        if trainer.world.first:
            print(statistics.median(times) / trainer.batch_size)


def images_scaling(rounds: int) -> tuple[float, float, float]:
    """Seconds an image of two processes, one thread each and over gloo, against one: half, on two idle cores."""

    def seconds(processes: int) -> float:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += ["--no-python", sys.executable, "-c", "from repro.studies.bench import images_rate as f; f()"]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        return float(done.stdout)

    pairs = [(seconds(2), seconds(1)) for _ in range(rounds)]
    ours, reference = (statistics.median(v) for v in zip(*pairs))
    return ours, reference, statistics.median(a / b for a, b in pairs)


def importing(rounds: int) -> tuple[float, float, float]:
    """A fresh interpreter that imports vsmd with its public functions against one that imports torch."""

    def start(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    return paired(start("from vsmd import fit, forward_process, load"), start("import torch"), rounds)


BENCHES: dict[str, Callable[[], tuple[float, float, float]]] = {
    "train_step": lambda: train_step(15),
    "solver_step": lambda: solver_step(25),
    "forecast_train_step": lambda: forecast_train_step(9),
    "forecast_sampling": lambda: forecast_sampling(5),
    "kernel_2000x2": lambda: kernel(2_000, 2, 200),
    "kernel_64x3072": lambda: kernel(64, 3_072, 15),
    "images_train_step": lambda: images_train_step(9),
    "images_solver_step": lambda: images_solver_step(9),
    "images_scaling": lambda: images_scaling(3),
    "import": lambda: importing(7),
}


def run(name: str) -> Result:
    """One row of bench.csv: seconds of ours and of the reference, and their ratio; one thread."""
    ours, reference, ratio = BENCHES[name]()
    cells = {"name": name, "ours": ours, "reference": reference, "ratio": ratio, "unit": "s"}
    return Result({"bench": [cells]})


def main() -> None:
    """Measure every bench, one after the other, into reports/tables/bench.csv, and print the table."""
    from repro import grid

    store = grid.profile("full").store
    runs = grid.product("repro.studies.bench:run", name=list(BENCHES))
    grid.execute(runs, store, workers=1, refresh=True, scheduler="cores")
    print(store.table("bench", runs).to_string(index=False))


if __name__ == "__main__":
    main()
