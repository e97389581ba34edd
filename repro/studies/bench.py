"""`make bench`: what our code costs on top of the bare network or against a peer, as ratios measured in one run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vsmd
import vsmd.images
from repro.grid.runs import Result
from repro.studies.bench_images import images_scaling, images_solver_step, images_train_step
from repro.studies.highdim import network_of
from repro.studies.recurrent import Recurrent
from repro.studies.sets.highdim import DIM, blocks_64
from repro.studies.sets.toys import toy
from repro.studies.timing import bare_steps, paired, trainer_of
from repro.studies.windows import Windows
from vsmd import kernels, random
from vsmd.couplings import MixtureFit
from vsmd.forecasting.predictor import VSMDPredictor
from vsmd.forecasting.series import Series
from vsmd.networks.mlp import MLP
from vsmd.samplers import as_solver, make_solver, time_grid
from vsmd.samplers.base import no_noise


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


COMPONENTS = MixtureFit(50, steps=20)  # fitted in no time: it is another one's, that costs as much


def mixture_train_step(rounds: int) -> tuple[float, float, float]:
    """Five training steps with a mixture score of 50 components, d = 64, against as many of the linear process."""

    def steps(kind: str) -> Callable[[], object]:
        process = vsmd.forward_process("VSCLD", (DIM,), variational_score=kind)
        trainer = trainer_of(process, blocks_64(), MLP((DIM,), width=256, depth=6), 1024, COMPONENTS)
        return lambda: [trainer.advance() for _ in range(5)]

    return paired(steps("mixture"), steps("zero"), rounds)


def mixture_solver_step(network: nn.Module, rounds: int) -> tuple[float, float, float]:
    """An exponential step of 2,000 paths under a mixture score (50 components, d = 64) against a bare network call."""
    points = blocks_64()(5_000, random.generator(0, "bench"))
    process = vsmd.forward_process("VSCLD", (DIM,), variational_score="mixture").with_data(points)
    score = vsmd.scores.Score(process.coupled(points.double(), COMPONENTS), network)
    solver = make_solver("exponential", score, time_grid(10))
    a = torch.randn(2_000, 2, DIM, generator=random.generator(0, "bench"))
    z, level = a[:, 0].contiguous(), torch.zeros(1, DIM)
    with torch.no_grad():
        return paired(lambda: solver.step(a, 4, no_noise), lambda: network(z, level), rounds)


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
    "mixture_train_step": lambda: mixture_train_step(9),
    "mixture_solver_step": lambda: mixture_solver_step(network_of(0), 15),  # the network of notebook 08's 64 dimensions
    "mixture_solver_step_mlp": lambda: mixture_solver_step(MLP((DIM,), width=256, depth=6), 15),
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
