r"""What the study `cost` trains: simulated bridges, the family, flow matching; and how each is looked at on the way.

A contestant in training is shown as a `Shown`: it draws samples within a number of network calls, gives paths of its
probability flow, and has a control energy

    1/2 \int g^2 E|u|^2 dtau    of its forward process from the data against its reference,

for the family in closed form, u = -((s - 1) x + gamma (c - c_0) v)/(2 gamma) with the uncontrolled friction c_0 at its
R, and u = -(D - 1) x/2 without velocity. Comparable where reference, units and clock are the same: mSB beside VSCLD and
steered, SB beside SB only. DSBM's is against Brownian motion; flow matching has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

import vsmd
from repro.studies import bridge_matching, flow_matching, flow_peers, simulated_bridges, toys
from repro.studies.drawing import counted, drawn
from repro.studies.plans import Draw
from repro.studies.sets.toys import toy
from vsmd import checks, random
from vsmd.processes import ForwardProcess
from vsmd.samplers import SOLVERS, time_grid

ENERGY_POINTS, MOMENTS = 20_000, 100_000
BRIDGE_SOLVERS = {"chain": 1, "flow": 2}  # network calls a step
BRIDGES: dict[str, dict[str, Any]] = {
    "mSB": {"k": 2, "beta": 5.0}, "mSB-standardised": {"k": 2, "beta": 5.0, "standardised": True},
    "SB": {"k": 1, "beta": 10.0}, "SB-standardised": {"k": 1, "beta": 10.0, "standardised": True},
    "DSBM-standardised": {"matching": True, "standardised": True},
}  # fmt: skip
FAMILY: dict[str, dict[str, Any]] = {  # in the data's units at the paper's beta, but for CLD's second row
    "VSDM": {"method": "VSDM", "beta": 10.0, "R": None}, "CLD": {"method": "CLD", "beta": 10.0, "R": 1.0},
    "CLD-standardised": {"method": "CLD", "beta": 5.0, "R": 1.0, "units": "standardised"},
    "VSCLD": {"method": "VSCLD", "beta": 5.0, "R": 1.0}, "VSULD": {"method": "VSULD", "beta": 5.0, "R": 0.7},
    "steered": {"method": "VSCLD", "beta": 5.0, "R": 1.0, "a_mode": "steered"},
}  # fmt: skip
FLOWS = {"OT-CFM": "ot-cfm", "OT-CFM-standardised": "ot-cfm-standardised"}  # ours; the library's by its own names
LIBRARY = tuple(f"torchcfm {name}" for name in flow_peers.METHODS)
METHODS = (*BRIDGES, *FAMILY, *FLOWS, *LIBRARY)


class Shown(Protocol):
    """A contestant as it stands."""

    def sample(self, n: int, solver: str, nfe: int, seed: int) -> tuple[Tensor, int]:
        """n samples (n, 2) within nfe network calls a path, and their number."""

    def path(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Paths (m + 1, n, 2) of the probability flow and their times (m + 1,), a uniform grid."""

    def control_energy(self, seed: int) -> float | None:
        """See the module; None where there is none."""


Look = Callable[[int, float, Shown], None]  # step, processor seconds of training so far, what there is


def control_energy(process: ForwardProcess) -> float:
    """The family's control energy, in the units of the process, by its second moments on 2,000 steps of t."""
    times = torch.linspace(1e-4, 1, 2_001, dtype=torch.float64)
    law = process.covariance(process.kernel(times), process.known().var)
    s, *c = process.rates(times)
    noise = 2 * process.gamma if process.k == 2 else 2.0
    free = 2 / process.gamma * float(process.damping or 1.0) ** 0.5
    gains = [-(s - 1) / noise, *(-process.gamma * (friction - free) / noise for friction in c)]
    power = sum(a * law[i][j] * b for i, a in enumerate(gains) for j, b in enumerate(gains))
    assert isinstance(power, Tensor)
    return float(torch.trapezoid(0.5 * noise * power.flatten(1).sum(1), process.schedule.clock(times)))


@dataclass(frozen=True)
class OfFamily:
    """A model of the family."""

    model: vsmd.Model

    def sample(self, n: int, solver: str, nfe: int, seed: int) -> tuple[Tensor, int]:
        plain, _, clean = solver.partition("+")
        draw = Draw(checks.one_of("solver", plain, SOLVERS), nfe, denoise=bool(clean))
        return counted(self.model.network, nfe, partial(drawn, self.model, n, draw, seed))

    def path(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        x = self.model.sample(n, "heun", toys.PATH_STEPS, seed, grid_power=1.0, trajectory=True)
        return x, time_grid(toys.PATH_STEPS, self.model.t_min)

    def control_energy(self, seed: int) -> float | None:
        return control_energy(self.model.process)


@dataclass(frozen=True)
class OfBridge:
    """A bridge on the grid that it was trained on, or on another one that as many network calls allow."""

    bridge: simulated_bridges.Bridge | bridge_matching.MatchedBridge
    grid: int
    dataset: str

    def sample(self, n: int, solver: str, nfe: int, seed: int) -> tuple[Tensor, int]:
        calls = BRIDGE_SOLVERS[checks.one_of("solver", solver, BRIDGE_SOLVERS)]
        steps = max(1, nfe // calls)
        return self.bridge.on(steps).sample(n, seed, flow=solver == "flow"), steps * calls

    def path(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        x = self.bridge.on(self.grid).sample(n, seed, flow=True, trajectory=True)
        return x, torch.linspace(0, 1, self.grid + 1, dtype=torch.float64)

    def control_energy(self, seed: int) -> float | None:
        x = toy(self.dataset)(ENERGY_POINTS, random.generator(seed, "energy data"))
        return self.bridge.control_energy(x, seed)


@dataclass(frozen=True)
class OfFlow:
    """A flow, ours or the library's."""

    flow: flow_matching.Flow

    def sample(self, n: int, solver: str, nfe: int, seed: int) -> tuple[Tensor, int]:
        draw = Draw(checks.one_of("solver", solver, flow_matching.EVALUATIONS), nfe, grid_power=1.0)
        return flow_matching.drawn(self.flow, n, draw, seed)

    def path(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        x = self.flow.sample(n, "heun", toys.PATH_STEPS, seed, trajectory=True)
        return x, torch.linspace(0, 1, toys.PATH_STEPS + 1, dtype=torch.float64)

    def control_energy(self, seed: int) -> float | None:
        return None


def train(
    method: str,
    dataset: str,
    seed: int,
    steps: int,
    marks: list[int],
    grid: int,
    look: Look,
    settings: Mapping[str, Any],
) -> None:
    """Train one of `METHODS` on a toy for `steps` optimiser steps, looked at near those of `marks`.

    grid: steps of a bridge's simulations. settings: learning_rate of any; stages of a bridge, at whose ends it is
    looked at; sigma of bridge matching. What looks take does not count as training,
    whose seconds are processor time: those of one idle core, whatever else the machine does.
    """
    checks.one_of("method", method, METHODS)
    _load()
    if method in BRIDGES:
        _bridge(BRIDGES[method], dataset, seed, steps, marks, grid, look, **settings)
    elif method in FAMILY:
        _family(FAMILY[method], dataset, seed, steps, marks, look, **settings)
    else:
        _flow(method, dataset, seed, steps, marks, look, **settings)


def _load() -> None:
    """Import what the first optimiser and the first plan of a process would, for seconds, within the training."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    import_module("ot")


def solvers_of(method: str) -> list[str]:
    """The solvers that samples of a method may be drawn by; "+denoise" may follow the family's."""
    return list(BRIDGE_SOLVERS if method in BRIDGES else SOLVERS if method in FAMILY else flow_matching.EVALUATIONS)


def _family(
    of: Mapping[str, Any], dataset: str, seed: int, steps: int, marks: list[int], look: Look,
    learning_rate: float = toys.LEARNING_RATE,
) -> None:  # fmt: skip
    process = toys.process_of(of["method"], of["beta"], of["R"], "constant", a_mode=of.get("a_mode"))
    start, looking = time.process_time(), 0.0

    def shown(step: int, model: vsmd.Model) -> None:
        nonlocal looking
        began = time.process_time()
        look(step, began - start - looking, OfFamily(model))
        looking += time.process_time() - began

    vsmd.fit(
        process, toy(dataset), units=of.get("units", "raw"), steps=steps, learning_rate=learning_rate, seed=seed,
        snapshots=marks, on_snapshot=shown,
    )  # fmt: skip


def _flow(
    method: str, dataset: str, seed: int, steps: int, marks: list[int], look: Look,
    learning_rate: float = toys.LEARNING_RATE,
) -> None:  # fmt: skip
    common: dict[str, Any] = {
        "network": None, "steps": steps, "batch_size": 1_024, "learning_rate": learning_rate, "schedule": "cosine",
        "ema": 0.999, "clip": 1.0, "seed": seed, "device": torch.device("cpu"),
    }  # fmt: skip
    data = toy(dataset)
    if method in LIBRARY:
        trainer: flow_matching.FlowTrainer
        trainer = flow_peers.PeerTrainer(method.removeprefix("torchcfm "), data, (2,), **common)
    else:
        trainer = flow_matching.FlowTrainer(FLOWS[method], data, (2,), "gaussian", **common)
    seconds = 0.0
    for mark in marks:
        began = time.process_time()
        while trainer.step < mark:
            trainer.advance()
        seconds += time.process_time() - began
        look(mark, seconds, OfFlow(trainer.flow()))


def _bridge(
    of: Mapping[str, Any], dataset: str, seed: int, steps: int, marks: list[int], grid: int, look: Look,
    stages: int = 10, learning_rate: float = 2e-3, sigma: float = 1.0,
) -> None:  # fmt: skip
    data, inner = toy(dataset), max(1, steps // (2 * checks.positive_int("stages", stages)))
    x = data(MOMENTS, random.generator(seed, "moments"))
    mean, deviation = x.mean(0), x.std(0)
    scaled = of.get("standardised", False)
    moments = (mean, deviation if scaled else torch.ones_like(deviation))
    due = {max(0, round(mark / (2 * inner)) - 1) for mark in marks}

    def shown(stage: int, bridge: Any, seconds: float) -> None:
        if stage in due:
            look((stage + 1) * 2 * inner, seconds, OfBridge(bridge, grid, dataset))

    common: dict[str, Any] = {
        "stages": stages, "inner": inner, "learning_rate": learning_rate, "seed": seed, "on_stage": shown,
        "refresh": min(100, inner),
    }  # fmt: skip
    if of.get("matching"):
        bridge_matching.train(data, moments, sigma=sigma, steps=grid, **common)
        return
    chain = simulated_bridges.Chain(k=of["k"], dim=2, clock=of["beta"] / 2, steps=grid)
    spread = torch.ones_like(deviation) if scaled else deviation
    simulated_bridges.train(
        chain, data, moments, policy=lambda c: simulated_bridges.Policy(c, spread=spread), **common
    )  # fmt: skip
