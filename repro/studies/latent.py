"""The latent bridge where its error can be measured: a manifold of known dimension, a mixture of known drift.

Rows of `latent`: w2 is the exact W2 of 2,000 samples against as many fresh points, the mean of disjoint pairs; method
`real` is what fresh points score against fresh points, the floor. recon_error is √E|x - decode(encode(x))|².
Rows of `latent_rates`: fitted exponents, drift errors, memorisation (`convergence.rates`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import vsmd
from repro.grid.runs import Result
from repro.studies.convergence import Row, power, rates
from repro.studies.sets.manifolds import manifold
from vsmd import latent, random
from vsmd.latent.bridge import STOP, drift, paper_time, sigma_of, stopped
from vsmd.metrics.distances import wasserstein2
from vsmd.metrics.neighbours import memorisation
from vsmd.model import Model
from vsmd.priors import Mixture
from vsmd.processes import ForwardProcess

LATENT_COLUMNS = [
    "experiment", "method", "ambient_dim", "latent_dim", "n_train", "n_pretrain", "seed", "w2", "fd", "recon_error",
    "train_seconds", "sample_seconds",
]  # fmt: skip
STEPS = 50  # of the bridge's solver
BRIDGE: dict[str, Any] = {"batch_size": 512, "learning_rate": 4e-3}
TIMES = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.998]  # of the paper's clock, where drifts are compared
STEERED = "steered "  # before the name of a method

Score = Callable[[Tensor, float], Tensor]


def row(experiment: str, method: str, seed: int, **values: Any) -> Row:
    """A row of `latent` with all its columns."""
    given = {"experiment": experiment, "method": method, "seed": seed, **values}
    return {name: given.get(name) for name in LATENT_COLUMNS}


def bridge_of(method: str, shape: tuple[int, ...]) -> str | ForwardProcess:
    """What `latent.fit` takes for a method's name: LSBDM, the six, and "steered VSULD" and the like, at beta = 2."""
    if not method.startswith(STEERED):
        return method
    name = method.removeprefix(STEERED)
    return vsmd.forward_process(name, shape, beta=2.0, variational_score="steered", basis="principal")


def solver_of(method: str) -> tuple[str, int]:
    """Solver and steps at equal cost: the paper's SDE for LSBDM, Heun's two evaluations a step for the others."""
    return ("euler-maruyama", STEPS) if method == "LSBDM" else ("heun", STEPS // 2)


def mean_w2(x: Tensor, y: Tensor, points: int) -> float:
    """Mean exact W2 of disjoint parts of `points` each; nan for samples that diverged."""
    if not bool(torch.isfinite(x).all()):
        return float("nan")
    pairs = zip(x.split(points), y.split(points), strict=True)
    return float(np.mean([wasserstein2(a, b) for a, b in pairs]))


def excess(w2: float, floor: float) -> float:
    """√(w2² - floor²): the part of w2 that is not the noise of two finite samples; 0 below the floor."""
    return max(w2**2 - floor**2, 0.0) ** 0.5


class Exact(nn.Module):
    """E[target | z] for codes whose smoothed law has a known score(x, s), x in data coordinates: no training.

    In a bridge's model it makes the drift exact: what is left is the start, the steps and the early stop.
    """

    def __init__(self, process: ForwardProcess, score: Score) -> None:
        super().__init__()
        self.process, self.score = process, score

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        mean, var = self.process.known()
        std = var.sqrt()
        s = (std / log_snr.double().exp())[0]  # the noise, the same in all directions
        total = var + s.square()
        centred = z.double() * total.sqrt()
        given = self.score(self.process.basis.back(centred) + mean, float(s.flatten()[0]))
        return ((self.process.basis.into(given) + centred / total) * s * total.sqrt() / std).to(z)


def empirical_score(points: Tensor) -> Score:
    """Score of the law of `points` (m, d) smoothed with N(0, s² I): (Σ w_j y_j - x)/s²."""
    kept = points.double()

    def score(x: Tensor, s: float) -> Tensor:
        weight = (-0.5 * torch.cdist(x, kept).square() / s**2).softmax(1)
        return (weight @ kept - x) / s**2

    return score


# --- manifold -------------------------------------------------------------------------------------------------------


def run_manifold(
    intrinsic: int,
    ambient: int,
    seed: int,
    ns: list[int],
    methods: list[str] = ["LSBDM"],  # noqa: B006 - never mutated
    n_pretrain: int = 20_000,
    shift: float = 0.0,
    steps: int = 3_000,
    pretrain_steps: int = 4_000,
    pairs: int = 4,
    points: int = 2_000,
    references: int = 8_000,
    workdir: Path | None = None,
) -> Result:
    """One manifold and seed: pre-train once, then LSBDM at each of `ns` training points, other methods at the last.

    Rows of `latent`, each rung of the ladder one error more than the one above it: `real`; `reconstruction` (encode and
    decode fresh points: pre-training); `early stop` (with the noise that the bridge leaves); `exact drift` (the
    bridge's steps with the drift of `references` fresh codes: discretisation); LSBDM (estimation). `LSBDM, moments
    start` begins at N(m, C + σ² I), which remembers no code. shift: the pre-training law is moved along the manifold;
    rows are then named `… (pre-trained at shift 0.5)`. Rows of `latent_rates`: excess_w2, what n leaves over the
    floor, with its fitted exponent (minus the slope) beside 2/(2 + d*); memorisation of either start.
    """
    data = manifold(intrinsic, ambient)
    shared: Row = {"ambient_dim": ambient, "latent_dim": intrinsic, "n_pretrain": n_pretrain}
    suffix = f" (pre-trained at shift {shift:g})" if shift else ""
    start = time.perf_counter()
    autoencoder = latent.pretrain(
        latent.VectorAutoencoder((ambient,), intrinsic),
        data.shifted(shift)(n_pretrain, random.generator(seed, "pretraining data")),
        steps=pretrain_steps, seed=seed, checkpoint=_file(workdir, "autoencoder"),
    )  # fmt: skip
    pretrained = time.perf_counter() - start
    count = pairs * points
    fresh, other = (data(count, random.generator(seed, name)) for name in ("w2 data", "w2 other"))
    floor = mean_w2(other, fresh, points)
    rows = [row("manifold", "real", seed, **shared, w2=floor)]
    errors: list[float] = []
    copies: dict[str, list[float]] = {"empirical": [], "moments": []}
    for n in ns:
        train, held_out = (data(n, random.generator(seed, f"{part} data", n)) for part in ("training", "held-out"))
        for method in ["LSBDM"] if n != ns[-1] else list(dict.fromkeys(["LSBDM", *methods])):
            start = time.perf_counter()
            model = latent.fit(
                train, autoencoder=autoencoder, bridge=bridge_of(method, (intrinsic,)), steps=steps, seed=seed,
                checkpoint=_file(workdir, f"{method}-{n}"), **BRIDGE,
            )  # fmt: skip
            about = {**shared, "n_train": n, "train_seconds": pretrained + time.perf_counter() - start}
            about["recon_error"] = _rms(model.reconstruct(fresh) - fresh)
            if n == ns[-1] and method == "LSBDM":
                dense = model.encode(data(references, random.generator(seed, "dense codes")))
                for name, x in _ladder(model, dense, other, seed).items():
                    rows.append(row("manifold", name + suffix, seed, **about, w2=mean_w2(x, fresh, points)))
            for prior in ("empirical", "moments") if method == "LSBDM" else (model.process.prior,):
                started = model.with_prior(prior) if prior != model.process.prior else model
                start = time.perf_counter()
                x = _drawn(started, count, method, seed)
                about["sample_seconds"] = time.perf_counter() - start
                name = f"{method}, moments start" if method == "LSBDM" and prior == "moments" else method
                rows.append(row("manifold", name + suffix, seed, **about, w2=mean_w2(x, fresh, points)))
                if method == "LSBDM":
                    copies[prior].append(memorisation(x[:points], train, held_out))
                    if prior == "empirical":
                        errors.append(excess(float(rows[-1]["w2"]), floor))
    setting = f"d* {intrinsic}, d {ambient}{suffix}"
    table: list[Row] = []
    seen = [(n, e) for n, e in zip(ns, errors) if e > 0]
    if len(seen) > 1:
        counts, left = ([float(v) for v in column] for column in zip(*seen))
        found = power(counts, left)
        falls = found._replace(slope=-found.slope, low=-found.high, high=-found.low)
        table += rates("excess_w2", setting, counts, left, falls, 2 / (2 + intrinsic), seed)
    for prior, values in copies.items():
        table += rates(f"memorisation_{prior}", setting, [float(n) for n in ns], values, None, 0.5, seed)
    return Result({"latent": rows, "latent_rates": table})


def _file(workdir: Path | None, name: str) -> Path | None:
    return None if workdir is None else workdir / f"{name.replace(' ', '-')}.safetensors"


def _rms(difference: Tensor) -> float:
    return float(difference.double().flatten(1).square().sum(1).mean().sqrt())


def _drawn(model: latent.LatentModel, n: int, method: str, seed: int, **options: Any) -> Tensor:
    solver, steps = solver_of(method)
    try:
        return model.sample(n, solver, steps, seed, denoise=False, **options)
    except FloatingPointError:
        return torch.full((n, *model.shape), float("nan"))


def _ladder(model: latent.LatentModel, dense: Tensor, other: Tensor, seed: int) -> dict[str, Tensor]:
    """Samples of the rungs between the floor and the trained bridge; dense: codes that stand for their law."""
    process, last = model.process, torch.tensor(model.bridge.t_min, dtype=torch.float64)
    codes = model.encode(other)
    left = float((2 * process.schedule.clock(last)).sqrt())
    noisy = codes + left * torch.randn(codes.shape, generator=random.generator(seed, "early stop"))
    known = process.with_prior("empirical", dense)
    bridge = dataclasses.replace(model.bridge, process=known, network=Exact(known, empirical_score(dense)))
    exact = dataclasses.replace(model, bridge=bridge)
    drawn = _drawn(exact, len(other), "LSBDM", seed, batch_size=500)
    return {"reconstruction": model.decode(codes), "early stop": model.decode(noisy), "exact drift": drawn}


# --- mixture --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A sampler of five Gaussians of equal weight in R^d, centred; one width an axis, from .5 down to .1."""

    means: Tensor
    std: Tensor

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, len(self.std), generator=generator, dtype=torch.float64)
        return (self.means[which] + self.std * noise).float()

    def score(self, x: Tensor, s: float) -> Tensor:
        """∇log q_s(x) in closed form, float64."""
        var = self.std.square() + s**2
        off = self.means - x[:, None]
        weight = (-0.5 * (off.square() / var).sum(-1)).softmax(1)
        return (weight[:, :, None] * off).sum(1) / var

    def start(self, process: ForwardProcess) -> ForwardProcess:
        """The process whose start is q_σ itself: a mixture law of the statistic, exact in the process's directions."""
        mean, var = process.known()
        snr = process.snr(torch.ones(1, dtype=torch.float64))[0][0]
        norm = (1 + snr.square()).sqrt()
        scale = snr / norm / var.sqrt()
        centres = process.basis.into(self.means - mean) * scale
        turned = process.basis.into(torch.diag(self.std))  # rows: the law's axes in directions
        cov = turned.T @ turned
        cov = scale[:, None] * cov * scale + torch.diag(1 / norm.square())
        size = len(self.means)
        factor = torch.linalg.cholesky(cov).expand(size, -1, -1).contiguous()
        law = Mixture(torch.full((size,), 1 / size, dtype=torch.float64), centres, factor)
        return dataclasses.replace(process, prior="mixture", mixture=law)


def five_gaussians(dim: int) -> Codes:
    """The codes' law in R^dim, a fixed one for each dim, of root mean square deviation near 1."""
    means = torch.randn(5, dim, generator=random.generator(0, "five Gaussians", dim), dtype=torch.float64)
    means = means - means.mean(0)
    std = torch.logspace(np.log10(0.5), -1, dim, dtype=torch.float64)
    return Codes(means / means.square().mean().sqrt() * 0.95, std)


def run_mixture(
    dim: int,
    seed: int,
    methods: list[str],
    steps: int = 3_000,
    pairs: int = 4,
    points: int = 2_000,
    workdir: Path | None = None,
) -> Result:
    """Codes that are a Gaussian mixture, without an autoencoder: the bridge started exactly at q_σ, its drift measured.

    Rows of `latent`: `real`, `exact drift` (closed form: the steps' error alone), LSBDM, and other `methods` with
    priors of their own. Rows of `latent_rates`: drift_error, x = t of the paper's clock: E|b̂ - b|²/E|b|² at X_t ~ q,
    and of the Gaussian part alone (`drift_error_gaussian`); girsanov_kl: (1/2σ²)∫E|b̂ - b|²dt by the trapezoid rule, a
    bound on KL.
    """
    codes = five_gaussians(dim)
    count = pairs * points
    fresh, other = (codes(count, random.generator(seed, name)) for name in ("w2 data", "w2 other"))
    shared: Row = {"ambient_dim": dim, "latent_dim": dim}
    rows = [row("mixture", "real", seed, **shared, w2=mean_w2(other, fresh, points))]
    table: list[Row] = []
    for method in dict.fromkeys(["LSBDM", *methods]):
        process = latent.schrodinger_bridge((dim,)) if method == "LSBDM" else bridge_of(method, (dim,))
        if isinstance(process, str):
            process = vsmd.forward_process(process, (dim,), basis="principal")
        start = time.perf_counter()
        model = vsmd.fit(process, codes, steps=steps, seed=seed, checkpoint=_file(workdir, method), **BRIDGE)
        trained = time.perf_counter() - start
        variants = {method: model}
        if model.process.row.early_stop:
            variants = {method: _started(model, codes)}
            exact = dataclasses.replace(variants[method], network=Exact(model.process, codes.score))
            variants["exact drift"] = exact
            table += drift_errors(variants[method], codes, seed)
        for name, variant in variants.items():
            solver, n_steps = solver_of(method)
            start = time.perf_counter()
            x = variant.sample(count, solver, n_steps, seed, denoise=False)
            timing = {"sample_seconds": time.perf_counter() - start}
            if name == method:
                timing["train_seconds"] = trained
            rows.append(row("mixture", name, seed, **shared, **timing, w2=mean_w2(x, fresh, points)))
    return Result({"latent": rows, "latent_rates": table})


def _started(model: Model, codes: Codes) -> Model:
    return stopped(dataclasses.replace(model, process=codes.start(model.process)), STOP)


def drift_errors(model: Model, codes: Codes, seed: int, points: int = 4_000) -> list[Row]:
    """How far the learned drift is from the closed form, on draws of the law that it moves."""
    sigma, stream = sigma_of(model.process), random.generator(seed, "drift points")
    gaussian = dataclasses.replace(model, network=_Zero())
    found: dict[str, list[float]] = {"drift_error": [], "drift_error_gaussian": []}
    squares: list[float] = []
    nodes = [*TIMES, STOP]
    for t in nodes:
        s = sigma * (1 - t) ** 0.5
        x = codes(points, stream).double() + s * torch.randn(points, len(codes.std), generator=stream).double()
        true = sigma**2 * codes.score(x, s)
        size = float(true.square().sum(1).mean())
        for name, each in (("drift_error", model), ("drift_error_gaussian", gaussian)):
            error = float((drift(each, x, t).double() - true).square().sum(1).mean())
            found[name].append(error / size)
            if name == "drift_error":
                squares.append(error)
    setting = f"five Gaussians, d {len(codes.std)}"
    rows = [r for name, values in found.items() for r in rates(name, setting, nodes, values, None, 0.0, seed)]
    bound = float(np.trapezoid(squares, nodes)) / (2 * sigma**2)
    last = float(paper_time(model.process, torch.tensor(model.t_min, dtype=torch.float64)))
    return rows + rates("girsanov_kl", setting, [last], [bound], None, 0.0, seed)


class _Zero(nn.Module):
    """The network that leaves the Gaussian part of the score alone."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)
