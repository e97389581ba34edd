"""The toys with a mixture for variational score: standardised data, plain prior, few evaluations; what K buys.

Rows of `toys` as `repro.studies.toys` measures them, the method named -standardised, and one row of `mixture_scores`
for each fit: does the controlled process end in the prior?
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import toys
from repro.studies.plans import draws_of
from repro.studies.sets.toys import toy
from vsmd import checks, random
from vsmd.bridges import MixtureProcess
from vsmd.couplings import MixtureFit
from vsmd.data.kinds import DRAWS
from vsmd.model import Model
from vsmd.samplers import SOLVERS

KL_POINTS = 24_000  # of which 4,000 are carried to T


class Standardised(Model):
    """A model of standardised points whose samples are in the data's units."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, model: Model, mean: Tensor, std: Tensor) -> Standardised:
        """The model `model`, of points (x - mean)/std."""
        scaled = cls(model.process, model.network, model.history, model.t_min)
        object.__setattr__(scaled, "mean", mean)
        object.__setattr__(scaled, "std", std)
        return scaled

    def with_prior(self, name: str, data: Tensor | None = None, components: int = 32, seed: int = 0) -> Model:
        """The same model starting from another prior."""
        started = super().with_prior(name, None if data is None else (data - self.mean) / self.std, components, seed)
        return self.of(started, self.mean, self.std)

    def sample(self, *args: object, **options: object) -> Tensor:
        """Samples in the data's units."""
        return super().sample(*args, **options) * self.std + self.mean  # type: ignore[arg-type]


def end_kl(process: MixtureProcess, data: Tensor, draws: int = 4_000, seed: int = 0) -> float:
    """Estimate of KL(law of a_T || prior) in nats: does the process reach its prior? Below .01 it does.

    The law of a_T is the mean over points of a closed form, and is taken at ends of other points; the error is
    about sqrt(2 KL / draws), and the estimate is too small where few points are near (many dimensions).
    data: (n, *shape), n >= 2. draws: of ends, at most n/2.
    """
    coupling = process.coupling_of_data()
    x = process.to_directions(checks.points("data", data, process.shape)).double()
    ends, known = x[: min(draws, len(x) // 2)], x[len(x) // 2 :]
    delta = coupling.ends(ends, random.generator(seed, "end")).mT
    u, w = coupling.pushed(known).flatten(1), coupling.pushed(ends).flatten(1)
    w = w + torch.linalg.solve_triangular(coupling.lower, delta.mT, upper=False).mT.flatten(1)
    near = [(-0.5 * torch.cdist(e, u).square() - coupling.log_z(known)).logsumexp(1) for e in w.split(500)]
    phi = coupling.whitened().terms(w.view(len(w), *coupling.mean.shape[1:])).logsumexp(1)
    target, size = process.reference_variance(), coupling.lower.diagonal().log().sum()
    square = (w.view(len(w), process.dim, process.k) @ coupling.lower.T).flatten(1).square().sum(1)
    prior = -0.5 * square / target - 0.5 * process.dim * process.k * math.log(target)
    return float((torch.cat(near) - math.log(len(known)) + phi - process.dim * size - prior).mean())


def end_row(model: Model, data: Tensor, base: toys.Row) -> toys.Row:
    """How the process ends: KL estimate, of second moments alone, and the correlation of x_0 with x_T, mean of axes."""
    process = model.process
    assert isinstance(process, MixtureProcess)
    x = process.to_directions(data[:20_000]).double()
    end = process.states(x, torch.ones(len(x), dtype=torch.float64), random.generator(0, "correlation"))[:, 0]
    together = [float(torch.corrcoef(torch.stack([x[:, i], end[:, i]]))[0, 1]) for i in range(x.shape[1])]
    chosen = len(process.coupling_of_data().log_weight)
    measured = {"end_kl": end_kl(process, data), "moments_kl": float(process.prior_kl().sum())}
    return {**base, "chosen": chosen, **measured, "correlation": sum(together) / len(together)}


def run(
    dataset: str,
    seed: int,
    plan: list[toys.Row],
    method: str = "VSCLD",
    beta: float = 2,
    R: float | None = None,
    components: int | None = 50,
    fit_steps: int = 2_000,
    steps: int = 6_000,
    samples: int = 100_000,
    points: int = 0,
    a_mode: str = "mixture",
    workdir: Path | None = None,
) -> Result:
    """Train a process with a mixture score on a standardised toy and measure it: rows of `toys` and `mixture_scores`.

    plan: what is sampled (`plans`). components, fit_steps: of the fit. a_mode: "mixture", or "steered" or "zero" to
    compare with, on the same data. points: how many samples to keep.
    """
    draws = draws_of(plan, SOLVERS, priors=True)
    main = draws[len(plan[0]["evaluations"]) - 1]
    known = toy(dataset)(DRAWS, random.generator(seed, "scale"))
    mean, std = known.mean(0), known.std(0)

    def data(n: int, stream: torch.Generator) -> Tensor:
        return (toy(dataset)(n, stream) - mean) / std

    process = vsmd.forward_process(method, (2,), beta=beta, damping=R, variational_score=a_mode)
    name = method + "-standardised" + (f"-K{components}" if a_mode == "mixture" else "")
    base: toys.Row = {
        "dataset": dataset, "method": name, "beta": beta, "schedule": "constant", "R": R, "a_mode": a_mode,
        "basis": "coordinates",
    }  # fmt: skip
    begun = time.perf_counter()
    model = vsmd.fit(
        process, data, steps=steps, learning_rate=toys.LEARNING_RATE, seed=seed,
        mixture=MixtureFit(components, steps=fit_steps),
        checkpoint=None if workdir is None else workdir / "training.safetensors",
    )  # fmt: skip
    training = {"seed": seed, "train_steps": steps, "train_seconds": time.perf_counter() - begun}
    rows, shown = toys.measured(Standardised.of(model, mean, std), draws, main, base, training, samples)
    tables = {"toys": [toys.ordered(row) for row in rows]}
    if a_mode == "mixture":
        ends = {"dataset": dataset, "method": method, "beta": beta, "components": components, "seed": seed}
        tables["mixture_scores"] = [end_row(model, data(KL_POINTS, random.generator(seed, "end points")), ends)]
    return Result(tables, {f"{dataset}_{name}-{beta:g}_{seed}": shown[:points].numpy()} if points else {})
