"""A trained model: its final process, its network (EMA weights), and what one does with them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks, files, networks, random
from vsmd.bases import BASES
from vsmd.bridges import MixtureProcess
from vsmd.couplings import Coupling
from vsmd.methods import METHODS
from vsmd.moments import Moments
from vsmd.priors import Mixture, Prior
from vsmd.processes import ForwardProcess
from vsmd.samplers import Solver
from vsmd.samplers.generation import Generation
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score

FORMAT = "vsmd-model-2"
RATES = ("stiffness", "friction")  # of a process, in the order of `ForwardProcess.constant`
ROW = "image"  # label of a sample's own stream: images had one first, and stored ones are drawn from it


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

    def generation(
        self,
        solver: str | type[Solver] | Solver = "heun",
        steps: int = 50,
        *,
        grid_power: float = 2.0,
        denoise: bool | None = None,
        network: nn.Module | None = None,
        **options: Any,
    ) -> Generation:
        """The reverse process of this model, ready to run on states of the prior; arguments as of `sample`.

        network: the model's own as it is called, say compiled or given codes in place of a context.
        """
        if denoise is None:
            denoise = not self.process.row.early_stop
        score = Score(self.process, self.network if network is None else network)
        return Generation(score, solver, steps, self.t_min, grid_power=grid_power, denoise=denoise, **options)

    def sample(
        self,
        n: int | None = None,
        solver: str | type[Solver] | Solver = "heun",
        steps: int = 50,
        seed: int = 0,
        *,
        seeds: Sequence[int] | None = None,
        grid_power: float = 2.0,
        denoise: bool | None = None,
        context: Tensor | None = None,
        batch_size: int = 20_000,
        trajectory: bool = False,
        **options: Any,
    ) -> Tensor:
        """Draw n samples (n, *shape) float32 by the reverse process (12) from the prior, r = 1 - t from 0 to 1 - t_min:

            dx = -(beta/2) v dr,   dv = ((beta/2) (s x + gamma c v) + beta gamma s_v) dr + sqrt(beta gamma) dw

        or its probability flow, with half of s_v and no dw.

        n: how many; as many as there are `seeds` where it is left out.
        solver: a name in `vsmd.samplers.SOLVERS` (default "heun"), a solver's class or an instance.
        steps: of the solver, default 50 (Heun takes two evaluations a step).
        seed: of all draws, which depend on it alone for fixed-step deterministic solvers, on batch_size too for others.
        seeds: one a sample: with fixed steps sample i is then a function of seeds[i] alone, whoever is drawn with it.
        grid_power: of the grid t = u^power (`time_grid`), default 2; 1 is the paper's uniform one.
        denoise: one more evaluation, E[x_0 | a] where the grid ends, takes off the noise that is left there. Default:
            yes, but not along a trajectory, nor for a method that stops early on purpose.
        context: (n, …) for a conditional network.
        batch_size: samples drawn at once, default 20,000.
        trajectory: return x at every node of the grid, (steps + 1, n, *shape); with denoise the last is denoised.
        options: the solver's own (rtol, atol of "rk45").

        Raises ValueError for n, steps, batch_size < 1, seeds of another number, an unknown solver or one that needs a
        velocity; TypeError for options that the solver does not have; FloatingPointError where a flow diverges.
        """
        n = checks.positive_int("n", len(seeds) if n is None and seeds is not None else n)
        if seeds is not None and len(seeds) != n:
            raise ValueError(f"seeds: {len(seeds)} of them for n={n}; must be one a sample")
        batch_size = checks.positive_int("batch_size", batch_size)
        denoise = False if trajectory and denoise is None else denoise
        run = self.generation(solver, steps, grid_power=grid_power, denoise=denoise, **options)
        batches = []
        for rows, start, noise in self._starts(n, seed, seeds, batch_size):
            nodes: list[Tensor] = []
            watch = (lambda _, x, nodes=nodes: nodes.append(x)) if trajectory else None
            end = run(start, noise, None if context is None else context[rows], watch)
            batches.append(torch.stack([*nodes[:-1], end]) if trajectory else end)
        return torch.cat(batches, 1 if trajectory else 0)

    def _starts(
        self, n: int, seed: int, seeds: Sequence[int] | None, batch_size: int
    ) -> Iterator[tuple[slice, Tensor, random.Noise]]:
        """Rows, states of the prior and noise of each batch."""
        law = self.process.prior_law()
        states = law.sample(n, random.generator(seed, "prior")) if seeds is None else None
        for first in range(0, n, batch_size):
            rows = slice(first, min(first + batch_size, n))
            if seeds is not None:
                yield rows, *self.own_draws(law, seeds[rows])
            elif states is not None:
                yield rows, states[rows], random.BatchNoise(random.generator(seed, "noise", first))

    @staticmethod
    def own_draws(law: Prior, seeds: Sequence[int]) -> tuple[Tensor, random.RowNoise]:
        """States of the prior (n, k, *shape) and noise for solvers, row i from a stream of seeds[i] alone."""
        streams = [random.generator(seed, ROW) for seed in seeds]
        return torch.cat([law.sample(1, stream) for stream in streams]), random.RowNoise(streams)

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
        """Log-density of data in nats, float64 (n,), by the probability flow in the augmented space.

            log p(x) = log E_v [p(x, v) / N(v; 0, I)],   v ~ N(0, I);   without velocity p(x) itself

        Points are taken to lie at t = t_min, where training and the solvers' grids end.

        x: (n, *shape), in data coordinates.
        context: (n, …) for a conditional network.
        velocities: draws of v a point (default 1); each is exact if x and v are independent at t = 0, as in the data.
        seed: of v (default 0).
        rtol, atol: tolerances of the adaptive Runge–Kutta steps (default 1e-4).

        Raises ValueError if x has the wrong shape or is not finite, FloatingPointError if the flow diverges.
        """
        from vsmd.samplers.rk45 import log_likelihood

        x, velocities = checks.points("x", x, self.process.shape).cpu(), checks.positive_int("velocities", velocities)
        device, values = self.score.device, []
        context = None if context is None else context.to(device)
        for j in range(velocities if self.process.k == 2 else 1):
            a = self.process.to_directions(x)[:, None]
            extra = torch.zeros(len(x), dtype=torch.float64)
            if self.process.k == 2:
                v = torch.randn(a.shape, generator=random.generator(seed, "velocity", j), dtype=a.dtype)
                extra = 0.5 * v.double().square().flatten(1).sum(1) + 0.5 * self.process.dim * math.log(2 * math.pi)
                if isinstance(self.process, MixtureProcess):
                    drawn, log_density = self.process.velocity(a[:, 0], random.generator(seed, "velocity", j))
                    v, extra = drawn[:, None].to(a), -log_density
                a = torch.cat([a, v], 1)
            values.append(log_likelihood(self.score, a.to(device), self.t_min, context, rtol=rtol, atol=atol) + extra)
        return torch.stack(values).logsumexp(0) - math.log(len(values))

    def save(self, path: str | Path) -> Path:
        """Write process, network and history as one safetensors file, whole or not at all; `vsmd.load` reads it back.

        path: of the file, which is replaced if it exists; its folders are made. It is returned.

        Raises ValueError for a network without `name` and `settings`, OSError where the file cannot be written.
        """
        path = Path(path)
        files.write(path, FORMAT, *state(self))
        return path


def load(path: str | Path) -> Model:
    """The model that `Model.save` wrote, on the CPU and ready to sample; nothing in the file is run.

    path: of the file. A network, basis or method of your own must have its line in its table.

    Raises ValueError naming the path if the file is missing, damaged or foreign.
    """
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
    tensors = files.prefixed("network", model.network.state_dict())
    tensors |= files.prefixed("process", dict(zip(RATES, process.constant)) | process.known()._asdict())
    tensors |= files.prefixed("basis", process.basis.tensors)
    if isinstance(process, MixtureProcess):
        tensors |= files.prefixed("coupling", process.coupling_of_data()._asdict() | {"second": process.second})
    if process.mixture is not None:
        tensors |= files.prefixed("prior", process.mixture._asdict())
    info = {"process": process.settings, "network": network, "history": model.history, "t_min": model.t_min}
    return tensors, info


def from_state(tensors: dict[str, Tensor], info: dict[str, Any]) -> Model:
    """The model of `state`, on the CPU, its network ready for evaluation."""
    settings, fields, prior = dict(info["process"]), files.part(tensors, "process"), files.part(tensors, "prior")
    shape = tuple(settings["shape"])
    settings |= {"shape": shape, "schedule": BetaSchedule(**settings["schedule"])}
    checks.one_of("method", settings["method"], METHODS)
    basis = BASES[checks.one_of("basis", settings["basis"], BASES)]
    settings["basis"] = basis(shape, files.part(tensors, "basis"))
    coupled = files.part(tensors, "coupling")
    kind: Any = ForwardProcess
    if coupled:
        kind, settings["second"] = MixtureProcess, coupled.pop("second")
        settings["coupling"] = Coupling(**coupled)
    process = kind(
        **settings,
        constant=tuple(fields[name] for name in RATES if name in fields),
        moments=Moments(fields["mean"], fields["var"]),
        mixture=Mixture(**prior) if prior else None,
    )
    network = networks.build(info["network"]["name"], **info["network"]["settings"])
    network.load_state_dict(files.part(tensors, "network"))
    return Model(process, network.eval(), info["history"], info["t_min"])
