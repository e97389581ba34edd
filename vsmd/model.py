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

        x, velocities = self.check(x), checks.positive_int("velocities", velocities)
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

    def check(self, x: Tensor) -> Tensor:
        """x as float32 (n, *shape), or ValueError naming what is wrong."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.process.shape or not len(x):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"x={got}: must be a tensor of shape (n, {', '.join(map(str, self.process.shape))}), n >= 1"
            )
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x: must be finite, has NaN or inf")
        return x.float()

    def save(self, path: str | Path) -> Path:
        """Write the model as safetensors, atomically; `vsmd.load` reads it back."""
        process, path = self.process, Path(path)
        network = networks.describe(self.network)
        if "settings" not in network:
            raise ValueError(
                f"network={network['class']}: cannot be saved: it must have `name` and `settings` as vsmd's own"
            )
        tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        for name in ("a_x", "a_v", "basis"):
            if getattr(process, name) is not None:
                tensors[f"process.{name}"] = getattr(process, name).contiguous()
        mean, var = process.known()
        tensors |= {"process.mean": mean.contiguous(), "process.var": var.contiguous()}
        if process.mixture is not None:
            tensors |= {f"prior.{k}": v.contiguous() for k, v in process.mixture._asdict().items()}
        info = {
            "process": process.settings,
            "network": network,
            "history": self.history,
            "t_min": self.t_min,
        }
        files.write(path, FORMAT, tensors, info)
        return path


def load(path: str | Path) -> Model:
    """Read a model written by `Model.save`; ValueError naming the path if it is missing, damaged or foreign."""
    tensors, info = files.read(path, FORMAT)
    with files.refusing(path):
        settings = dict(info["process"])
        settings |= {"shape": tuple(settings["shape"]), "schedule": BetaSchedule(**settings["schedule"])}
        process = ForwardProcess(
            **settings,
            a_x=tensors["process.a_x"],
            a_v=tensors.get("process.a_v"),
            basis=tensors.get("process.basis"),
            moments=Moments(tensors["process.mean"], tensors["process.var"]),
            mixture=Mixture(*(tensors[f"prior.{k}"] for k in Mixture._fields)) if "prior.means" in tensors else None,
        )
        network = networks.build(info["network"]["name"], **info["network"]["settings"])
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
        return Model(process, network.eval(), info["history"], info["t_min"])
