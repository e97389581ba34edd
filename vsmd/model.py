"""A trained model: its final process, its network (EMA weights), and what one does with them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks, files, networks, random
from vsmd.moments import Moments
from vsmd.priors import Mixture
from vsmd.processes import ForwardProcess
from vsmd.samplers import integrate, make_solver, solver_class, time_grid
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score

FORMAT = "vsmd-model-1"


@dataclass(frozen=True, eq=False)
class Model:
    """What `fit` returns. `process` is the adapted one, `history` one row an adaptation (step, eta, s, c)."""

    process: ForwardProcess
    network: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)
    t_min: float = 1e-3

    @property
    def score(self) -> Score:
        """The score of the adapted process with the network's (EMA) weights."""
        return Score(self.process, self.network)

    def with_prior(self, name: str, data: Tensor | None = None, components: int = 32, seed: int = 0) -> Model:
        """The same model starting from another prior; see `ForwardProcess.with_prior`."""
        return dataclasses.replace(self, process=self.process.with_prior(name, data, components, seed))

    def sample(
        self,
        n: int,
        solver: str = "heun",
        steps: int = 50,
        seed: int = 0,
        *,
        grid_power: float = 2.0,
        context: Tensor | None = None,
        batch_size: int = 20_000,
        trajectory: bool = False,
        **options: float,
    ) -> Tensor:
        """Draw n samples (n, *shape) float32 by running the reverse process from the prior.

        solver: see `vsmd.samplers.SOLVERS`; steps: of the solver (Heun takes two evaluations a step). grid_power: of
        the grid t = u^power (`time_grid`); 1 is the paper's uniform one. context: (n, ...) for a conditional network.
        With trajectory=True the result is x at every node of the grid, (steps + 1, n, *shape). options: the solver's
        own (rtol, atol). Draws depend on seed alone for fixed-step deterministic solvers, on batch_size too for others.
        Raises ValueError for n, steps, batch_size < 1, an unknown solver or one that needs a velocity.
        """
        n, batch_size = checks.positive_int("n", n), checks.positive_int("batch_size", batch_size)
        times = time_grid(steps, self.t_min, grid_power)
        solver_class(solver)
        start = self.process.prior_law().sample(n, random.generator(seed, "prior"))
        out = []
        for first in range(0, n, batch_size):
            rows = slice(first, min(first + batch_size, n))
            part = None if context is None else context[rows].to(self.score.device)
            run = make_solver(solver, self.score, times, part, **options)
            kept: list[Tensor] = []

            def watch(i: int, a: Tensor, kept: list[Tensor] = kept) -> None:
                kept.append(self.process.from_directions(a[:, 0].cpu()))

            noise = random.generator(seed, "noise", first)
            end = integrate(run, start[rows].to(self.score.device), noise, watch if trajectory else None)
            out.append(torch.stack(kept) if trajectory else self.process.from_directions(end[:, 0].cpu()))
        return torch.cat(out, 1 if trajectory else 0)

    def log_prob(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        velocities: int = 1,
        seed: int = 0,
        rtol: float = 1e-4,
        atol: float = 1e-4,
    ) -> Tensor:
        """Log-density of data x (n, *shape) in nats, float64 (n,), by the probability flow in the augmented space.

        With velocity p(x) = E_v p(x, v)/N(v) over v ~ N(0, I): `velocities` draws a point are averaged under the log
        (exact as they grow; each is exact if x and v are independent at t = 0, as they are in the data). Points are
        taken to lie at t = 1e-3. context: (n, ...) for a conditional network.
        Raises ValueError if x has the wrong shape or is not finite.
        """
        from vsmd.samplers.rk45 import log_likelihood

        x, velocities = checks.points("x", x, self.process.shape), checks.positive_int("velocities", velocities)
        total = []
        for j in range(velocities if self.process.k == 2 else 1):
            a = self.process.to_directions(x)[:, None]
            extra = torch.zeros(len(x), dtype=torch.float64)
            if self.process.k == 2:
                v = torch.randn(a.shape, generator=random.generator(seed, "velocity", j), dtype=a.dtype)
                a = torch.cat([a, v], 1)
                extra = 0.5 * v.double().square().flatten(1).sum(1) + 0.5 * self.process.dim * math.log(2 * math.pi)
            given = None if context is None else context.to(self.score.device)
            value = log_likelihood(self.score, a.to(self.score.device), self.t_min, given, rtol=rtol, atol=atol)
            total.append(value + extra)
        return torch.stack(total).logsumexp(0) - math.log(len(total))

    def save(self, path: str | Path) -> Path:
        """Write the model as safetensors, atomically; `vsmd.load` reads it back."""
        path = Path(path)
        files.write(path, FORMAT, *state(self))
        return path


def load(path: str | Path) -> Model:
    """Read a model written by `Model.save`; ValueError naming the path if it is missing, damaged or foreign."""
    tensors, info = files.read(path, FORMAT)
    with files.refusing(path):
        return from_state(tensors, info)


def state(model: Model) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON settings from which `from_state` makes the model again; ValueError for a network of others."""
    process, network = model.process, networks.describe(model.network)
    if "settings" not in network:
        raise ValueError(
            f"network={network['class']}: cannot be saved: it must have `name` and `settings` as vsmd's own"
        )
    fields = {name: getattr(process, name) for name in ("a_x", "a_v", "basis")} | process.known()._asdict()
    tensors = files.prefixed("network", model.network.state_dict())
    tensors |= files.prefixed("process", {name: value for name, value in fields.items() if value is not None})
    if process.mixture is not None:
        tensors |= files.prefixed("prior", process.mixture._asdict())
    info = {"process": process.settings, "network": network, "history": model.history, "t_min": model.t_min}
    return tensors, info


def from_state(tensors: dict[str, Tensor], info: dict[str, Any]) -> Model:
    """The model of `state`, on the CPU, its network ready for evaluation."""
    settings, fields, prior = dict(info["process"]), files.part(tensors, "process"), files.part(tensors, "prior")
    settings |= {"shape": tuple(settings["shape"]), "schedule": BetaSchedule(**settings["schedule"])}
    process = ForwardProcess(
        **settings,
        a_x=fields["a_x"],
        a_v=fields.get("a_v"),
        basis=fields.get("basis"),
        moments=Moments(fields["mean"], fields["var"]),
        mixture=Mixture(**prior) if prior else None,
    )
    network = networks.build(info["network"]["name"], **info["network"]["settings"])
    network.load_state_dict(files.part(tensors, "network"))
    return Model(process, network.eval(), info["history"], info["t_min"])
