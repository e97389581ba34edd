"""The latent bridge where its error can be measured: a manifold of known dimension, a mixture of known drift.

Rows of `latent`: w2 is the exact W2 of 2,000 samples against as many fresh points, the mean of disjoint pairs; method
`real` is what fresh points score against fresh points, the floor. recon_error is √E|x - decode(encode(x))|².
Rows of `latent_rates`: fitted exponents, drift errors, memorisation (`convergence.rates`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies.convergence import Row, power, rates
from repro.studies.latent_laws import Exact, drift_errors, empirical_score, five_gaussians
from repro.studies.sets.manifolds import manifold
from vsmd import latent, random
from vsmd.latent.bridge import STOP, directions, stopped
from vsmd.metrics.distances import wasserstein2
from vsmd.metrics.neighbours import memorisation
from vsmd.processes import ForwardProcess
from vsmd.samplers.generation import steps_within

LATENT_COLUMNS = [
    "experiment", "method", "ambient_dim", "latent_dim", "n_train", "n_pretrain", "seed", "w2", "fd", "recon_error",
    "train_seconds", "sample_seconds",
]  # fmt: skip
STEPS = 50  # of the bridge's solver
BRIDGE: dict[str, Any] = {"batch_size": 512, "learning_rate": 4e-3}
STEERED = "steered "  # before the name of a method


def row(experiment: str, method: str, seed: int, **values: Any) -> Row:
    """A row of `latent` with all its columns."""
    cells = {"experiment": experiment, "method": method, "seed": seed, **values}
    return {name: cells.get(name) for name in LATENT_COLUMNS}


def bridge_of(method: str, shape: tuple[int, ...]) -> str | ForwardProcess:
    """What `latent.fit` takes for a method's name: LSBDM, the six, and "steered VSULD" and the like, at beta = 2."""
    if method == "LSBDM":
        return method
    steering: Row = {"beta": 2.0, "variational_score": "steered"} if method.startswith(STEERED) else {}
    return vsmd.forward_process(
        method.removeprefix(STEERED), shape, basis=directions(shape), prior="gaussian", **steering
    )


def solver_of(method: str, denoise: bool = False) -> tuple[str, int]:
    """Solver and steps within `STEPS` evaluations: the paper's SDE for LSBDM, Heun for the others.

    denoise: one of the evaluations takes off the noise that is left.
    """
    solver = "euler-maruyama" if method == "LSBDM" else "heun"
    return solver, steps_within(solver, STEPS, denoise)


def denoisable(methods: list[str], denoise: bool) -> list[str]:
    """Each of the methods once. Without LSBDM if samples are denoised: it stops early so that noise is left."""
    return [method for method in dict.fromkeys(methods) if not (denoise and method == "LSBDM")]


def checkpoint_in(workdir: Path | None, name: str) -> Path | None:
    """The file in a run's folder from which the training `name` goes on; None without a folder."""
    return None if workdir is None else workdir / f"{name.replace(' ', '-')}.safetensors"


def mean_w2(x: Tensor, y: Tensor, points: int) -> float:
    """Mean exact W2 of disjoint parts of `points` each; nan for samples that diverged."""
    if not bool(torch.isfinite(x).all()):
        return float("nan")
    pairs = zip(x.split(points), y.split(points), strict=True)
    return float(np.mean([wasserstein2(a, b) for a, b in pairs]))


def excess(w2: float, floor: float) -> float:
    """√(w2² - floor²): the part of w2 that is not the noise of two finite samples; 0 below the floor."""
    return max(w2**2 - floor**2, 0.0) ** 0.5


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
    denoise: bool = False,
    workdir: Path | None = None,
) -> Result:
    """One manifold and seed: pre-train once, then LSBDM at each of `ns` training points, other methods at the last.

    Rows of `latent`, each rung of the ladder one error more than the one above it: `real`; `reconstruction` (encode and
    decode fresh points: pre-training); `early stop` (with the noise that the bridge leaves); `exact drift` (the
    bridge's steps with the drift of `references` fresh codes: discretisation); LSBDM (estimation). `LSBDM, moments
    start` begins at N(m, C + σ² I), which remembers no code. shift: the pre-training law is moved along the manifold;
    rows are then named `… (pre-trained at shift 0.5)`. denoise: the last evaluation denoises; methods are then named
    `…+denoise`, and LSBDM, which is never denoised, is left out. Rows of `latent_rates`: excess_w2, what n leaves over
    the floor, with its fitted exponent (minus the slope) beside 2/(2 + d*); memorisation of either start.
    """
    law = manifold(intrinsic, ambient)
    fresh = FreshDraws.of(law, seed, pairs, points)
    shared: Row = {"ambient_dim": ambient, "latent_dim": intrinsic, "n_pretrain": n_pretrain}
    tail = f" (pre-trained at shift {shift:g})" if shift else ""
    before = law.shifted(shift)(n_pretrain, random.generator(seed, "pretraining data"))
    autoencoder, pretraining = _pretrained(before, intrinsic, pretrain_steps, seed, workdir)
    rows = [row("manifold", "real", seed, **shared, w2=fresh.floor)]
    errors: list[float] = []
    copies: dict[str, list[float]] = {"empirical": [], "moments": []}
    for n in ns:
        train, held_out = (law(n, random.generator(seed, f"{name} data", n)) for name in ("training", "held-out"))
        for method in denoisable(["LSBDM", *(methods if n == ns[-1] else [])], denoise):
            start = time.perf_counter()
            model = latent.fit(
                train, autoencoder=autoencoder, bridge=bridge_of(method, (intrinsic,)), steps=steps, seed=seed,
                checkpoint=checkpoint_in(workdir, f"{method}-{n}"), **BRIDGE,
            )  # fmt: skip
            about = {**shared, "n_train": n, "train_seconds": pretraining + time.perf_counter() - start}
            about["recon_error"] = _rms(model.reconstruct(fresh.first) - fresh.first)
            if n == ns[-1] and method == "LSBDM":
                dense = model.encode(law(references, random.generator(seed, "dense codes")))
                rungs = _ladder(model, dense, fresh.second, seed)
                rows += [row("manifold", k + tail, seed, **about, w2=fresh.w2(x)) for k, x in rungs.items()]
            samples = _sampled(model, method, fresh, about, denoise, seed)
            rows += [row("manifold", name + tail, seed, **columns) for name, columns, _ in samples]
            if method == "LSBDM":
                errors.append(excess(samples[0][1]["w2"], fresh.floor))
                for shares, (_, _, x) in zip(copies.values(), samples, strict=True):
                    shares.append(memorisation(x[:points], train, held_out))
    setting = f"d* {intrinsic}, d {ambient}{tail}"
    decay = _excess_rates(setting, ns, errors, 2 / (2 + intrinsic), seed)
    for prior, shares in copies.items():
        decay += rates(f"memorisation_{prior}", setting, [float(n) for n in ns], shares, None, 0.5, seed)
    return Result({"latent": rows, "latent_rates": decay})


@dataclasses.dataclass(frozen=True)
class FreshDraws:
    """Draws (n, *shape) of a law, twice, in groups of `points`: samples are measured against the first."""

    first: Tensor
    second: Tensor
    points: int

    @classmethod
    def of(cls, law: Callable[[int, torch.Generator], Tensor], seed: int, pairs: int, points: int) -> FreshDraws:
        """Draws of a run's seed, `pairs` groups of them."""
        first, second = (law(pairs * points, random.generator(seed, name)) for name in ("w2 data", "w2 other"))
        return cls(first, second, points)

    def w2(self, samples: Tensor) -> float:
        """Mean W2 of as many samples to the first draws, group by group."""
        return mean_w2(samples, self.first, self.points)

    @cached_property
    def floor(self) -> float:
        """What the law itself scores."""
        return self.w2(self.second)


def _pretrained(
    data: Tensor, intrinsic: int, steps: int, seed: int, workdir: Path | None
) -> tuple[latent.VectorAutoencoder, float]:
    """An autoencoder trained on data (n, d), and the seconds that took."""
    start = time.perf_counter()
    autoencoder = latent.pretrain(
        latent.VectorAutoencoder((data.shape[1],), intrinsic), data, steps=steps, seed=seed,
        units="scaled", checkpoint=checkpoint_in(workdir, "autoencoder"),
    )  # fmt: skip
    return autoencoder, time.perf_counter() - start


def _sampled(
    model: latent.LatentModel, method: str, fresh: FreshDraws, about: Row, denoise: bool, seed: int
) -> list[tuple[str, Row, Tensor]]:
    """Name, columns (`about`, w2, seconds) and samples of a trained bridge; of LSBDM from its moments, too."""
    starts = {method + "+denoise" * denoise: model}
    if method == "LSBDM":
        starts["LSBDM, moments start"] = model.with_prior("moments")
    samples: list[tuple[str, Row, Tensor]] = []
    for name, started in starts.items():
        start = time.perf_counter()
        x = _drawn(started, len(fresh.first), method, seed, denoise=denoise)
        seconds = time.perf_counter() - start
        samples.append((name, {**about, "sample_seconds": seconds, "w2": fresh.w2(x)}, x))
    return samples


def _excess_rates(setting: str, ns: list[int], errors: list[float], expected: float, seed: int) -> list[Row]:
    """Rows excess_w2 of what each n leaves over the floor, where that is something, with their fitted decay."""
    above = [(float(n), error) for n, error in zip(ns, errors) if error > 0]
    if len(above) < 2:
        return []
    counts, left = (list(column) for column in zip(*above))
    growth = power(counts, left)
    decay = growth._replace(slope=-growth.slope, low=-growth.high, high=-growth.low)
    return rates("excess_w2", setting, counts, left, decay, expected, seed)


def _rms(difference: Tensor) -> float:
    return float(difference.double().flatten(1).square().sum(1).mean().sqrt())


def _drawn(
    model: latent.LatentModel, n: int, method: str, seed: int, denoise: bool = False, batch_size: int = 20_000
) -> Tensor:
    """Samples (n, *shape) by the method's solver; nan where they diverge."""
    solver, steps = solver_of(method, denoise)
    try:
        return model.sample(n, solver, steps, seed, denoise=denoise, batch_size=batch_size, checked=False)
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
    steps_alone = _drawn(exact, len(other), "LSBDM", seed, batch_size=500)
    return {"reconstruction": model.decode(codes), "early stop": model.decode(noisy), "exact drift": steps_alone}


# --- mixture --------------------------------------------------------------------------------------------------------


def run_mixture(
    dim: int,
    seed: int,
    methods: list[str],
    steps: int = 3_000,
    pairs: int = 4,
    points: int = 2_000,
    denoise: bool = False,
    workdir: Path | None = None,
) -> Result:
    """Codes that are a Gaussian mixture, without an autoencoder: the bridge started exactly at q_σ, its drift measured.

    Rows of `latent`: `real`, `exact drift` (closed form: the steps' error alone), LSBDM, and other `methods` with
    priors of their own. Rows of `latent_rates`: `drift_errors`. denoise: as for `run_manifold`.
    """
    codes = five_gaussians(dim)
    fresh = FreshDraws.of(codes, seed, pairs, points)
    shared: Row = {"ambient_dim": dim, "latent_dim": dim}
    rows = [row("mixture", "real", seed, **shared, w2=fresh.floor)]
    errors: list[Row] = []
    for method in denoisable(["LSBDM", *methods], denoise):
        start = time.perf_counter()
        checkpoint = checkpoint_in(workdir, method)
        options = {"checkpoint": checkpoint, "units": "raw", **BRIDGE}
        model = vsmd.fit(_process(method, dim), codes, steps=steps, seed=seed, **options)
        training = {"train_seconds": time.perf_counter() - start}
        variants = {method: (model, training)}
        if model.process.row.early_stop:
            bridge = stopped(dataclasses.replace(model, process=codes.start(model.process)), STOP)
            exact = dataclasses.replace(bridge, network=Exact(model.process, codes.score))
            variants = {method: (bridge, training), "exact drift": (exact, {})}
            errors += drift_errors(bridge, codes, seed)
        for name, (variant, timing) in variants.items():
            solver, count = solver_of(method, denoise)
            start = time.perf_counter()
            x = variant.sample(pairs * points, solver, count, seed, denoise=denoise, checked=False)
            columns = {**shared, **timing, "sample_seconds": time.perf_counter() - start, "w2": fresh.w2(x)}
            rows.append(row("mixture", name + "+denoise" * denoise, seed, **columns))
    return Result({"latent": rows, "latent_rates": errors})


def _process(method: str, dim: int) -> ForwardProcess:
    """The process of a method on codes in R^dim, in their principal axes."""
    if method == "LSBDM":
        return latent.schrodinger_bridge((dim,))
    process = bridge_of(method, (dim,))
    assert isinstance(process, ForwardProcess)
    return process
