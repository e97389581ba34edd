"""A trained model: its final process, its network (EMA weights), and what one does with them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsmd import checks, files, networks, random, stored
from vsmd.bases import BASES
from vsmd.bridges import MixtureProcess
from vsmd.couplings import Coupling
from vsmd.data.kinds import points_of
from vsmd.methods import METHODS
from vsmd.moments import Moments
from vsmd.networks.contexts import Guided
from vsmd.priors import COMPONENTS, Mixture, Prior
from vsmd.processes import ForwardProcess
from vsmd.samplers import Solver
from vsmd.samplers.generation import Generation
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score
from vsmd.units import UNITS, Units

FORMAT = "vsmd-model-2"
RATES = ("stiffness", "friction")  # of a process, in the order of `ForwardProcess.constant`
SOLVER, STEPS = "exponential", 20  # on the toys within 5 % of where more steps end; Heun takes 100 evaluations for it
ROW = "image"  # label of a sample's own stream: images had one first, and stored ones are drawn from it


@dataclass(frozen=True, eq=False)
class Model:
    """What `fit` returns. `process` is the adapted one, `history` one row an adaptation (step, eta, s, c)."""

    process: ForwardProcess
    network: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)
    t_min: float = 1e-3
    context_dropout: float = 0.0  # share of training's points whose context was left out

    def __repr__(self) -> str:
        process, network = self.process, self.network
        low, high = process.schedule.b_min, process.schedule.b_max
        beta = f"beta {low:g}" if low == high else f"beta {low:g} to {high:g}"
        adapted = f"A adapted in {len(self.history)} rounds" if self.history else f"A {process.variational_score}"
        weights = sum(p.numel() for p in network.parameters())
        context = f", told {takes}" if (takes := getattr(network, "conditioning", None)) else ""
        dropped = f", left out of {self.context_dropout:.0%}" if self.context_dropout else ""
        return (
            f"Model of data {process.shape}: {process.method}, {beta}, {adapted}, prior {process.prior!r}\n"
            f"  {type(network).__name__}, {weights:,} weights on {self.score.device}{context}{dropped}"
        )

    def to(self, device: str | torch.device) -> Model:
        """The same model with its network on `device`, which computes there; ValueError where there is none."""
        network = copy.deepcopy(self.network).to(checks.device("device", device))
        return dataclasses.replace(self, network=network)

    @property
    def score(self) -> Score:
        """The score of the adapted process with the network's (EMA) weights."""
        return Score(self.process, self.network)

    def with_prior(self, name: str, data: Any = None, components: int = COMPONENTS, seed: int = 0) -> Model:
        """The same model starting from another prior, see `ForwardProcess.with_prior`; data: whatever `fit` takes."""
        if data is not None:
            data = points_of(data, self.process.shape, random.generator(seed, "prior data"))
        return dataclasses.replace(self, process=self.process.with_prior(name, data, components, seed))

    def generation(
        self,
        solver: str | type[Solver] | Solver = SOLVER,
        steps: int = STEPS,
        *,
        grid_power: float = 2.0,
        denoise: bool | None = None,
        guidance: float = 1.0,
        network: nn.Module | None = None,
        checked: bool = True,
        **options: Any,
    ) -> Generation:
        """The reverse process of this model, ready to run on states of the prior; arguments as of `sample`.

        network: the model's own as it is called, say compiled or given codes in place of a context.
        """
        network = self.network if network is None else network
        if checks.in_range("guidance", guidance, 0.0, 100.0) != 1:
            if not self.context_dropout:
                said = "must be 1 for a model that was fitted without context_dropout"
                raise ValueError(f"guidance={guidance:g}: {said}")
            takes: Any = self.network.conditioning
            network = Guided(network, takes, guidance)
        if denoise is None:
            denoise = not self.process.row.early_stop
        score = Score(self.process, network)
        options |= {"grid_power": grid_power, "denoise": denoise, "checked": checked}
        return Generation(score, solver, steps, self.t_min, **options)

    def sample(
        self,
        n: int | None = None,
        solver: str | type[Solver] | Solver = SOLVER,
        steps: int = STEPS,
        seed: int = 0,
        *,
        seeds: Sequence[int] | None = None,
        grid_power: float = 2.0,
        denoise: bool | None = None,
        context: Any = None,
        guidance: float = 1.0,
        batch_size: int = 20_000,
        trajectory: bool = False,
        checked: bool = True,
        **options: Any,
    ) -> Tensor:
        """Draw n samples (n, *shape) by the reverse process (12) from the prior, r = 1 - t from 0 to 1 - t_min:

            dx = -(beta/2) v dr,   dv = ((beta/2) (s x + gamma c v) + beta gamma s_v) dr + sqrt(beta gamma) dw

        or its probability flow, with half of s_v and no dw. float32, or float64 where the data's mean asks for it.

        n: how many; as many as there are `seeds` where it is left out.
        solver: a name in `vsmd.samplers.SOLVERS` (default "exponential"; the paper's: "heun"), a class or an instance.
        steps: of the solver, default 20 (one evaluation each; Heun takes two a step).
        seed: of all draws, which depend on it alone for fixed-step deterministic solvers, on batch_size too for others.
        seeds: one a sample: with fixed steps sample i is then a function of seeds[i] alone, whoever is drawn with it.
        grid_power: of the grid t = u^power (`time_grid`), default 2; 1 is the paper's uniform one.
        denoise: one more evaluation, E[x_0 | a] where the grid ends, takes off the noise that is left there. Default:
            yes, but not along a trajectory, nor for a method that stops early on purpose.
        context: for a conditional network labels (n,) or real numbers (n, features), or one of them for all samples; a
            model trained with `context_dropout` may go without.
        guidance: w >= 0 of s = s_0 + w (s_c - s_0), scores without and with the context; default 1: s_c itself, larger
            ones stress the context (`context_dropout`; twice the evaluations).
        batch_size: samples drawn at once, default 20,000.
        trajectory: return x at every node of the grid, (steps + 1, n, *shape); with denoise the last is denoised.
        checked: False draws whatever comes of too few steps, without a word, for those who measure solvers.
        options: the solver's own (rtol, atol of "rk45").

        Raises ValueError for n, steps, batch_size < 1, seeds of another number, a context that is not what the network
        takes, an unknown solver or one that needs a velocity; TypeError for options that the solver does not have;
        FloatingPointError where a flow diverges, or will in so few steps; see `vsmd.samplers.accuracy`.
        """
        n = checks.positive_int("n", len(seeds) if n is None and seeds is not None else n)
        if seeds is not None and len(seeds) != n:
            raise ValueError(f"seeds: {len(seeds)} of them for n={n}; must be one a sample")
        if context is None and guidance != 1:
            raise ValueError(f"guidance={guidance!r}: leads towards a context; must come with one")
        context = self.score.context_for(context, n, self.context_dropout > 0)
        denoise = False if checks.flag("trajectory", trajectory) and denoise is None else denoise
        options |= {"grid_power": grid_power, "denoise": denoise, "guidance": guidance, "checked": checked}
        run = self.generation(solver, steps, **options)
        batches = []
        for rows, start, noise in self._starts(n, seed, seeds, checks.positive_int("batch_size", batch_size)):
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
                yield rows, *self.draws_by_row(law, seeds[rows])
            elif states is not None:
                yield rows, states[rows], random.BatchNoise(random.generator(seed, "noise", first))

    @staticmethod
    def draws_by_row(law: Prior, seeds: Sequence[int]) -> tuple[Tensor, random.RowNoise]:
        """States of the prior (n, k, *shape) and noise for solvers, row i from a stream of seeds[i] alone."""
        streams = [random.generator(seed, ROW) for seed in seeds]
        return torch.cat([law.sample(1, stream) for stream in streams]), random.RowNoise(streams)

    def log_prob(
        self,
        x: Tensor,
        *,
        context: Any = None,
        velocities: int = 1,
        seed: int = 0,
        rtol: float = 1e-4,
        atol: float = 1e-4,
    ) -> Tensor:
        """Log-density of data in nats, float64 (n,), by the probability flow in the augmented space.

            log p(x) = log E_v [p(x, v) / N(v; 0, I)],   v ~ N(0, I);   without velocity p(x) itself

        Points are taken to lie at t = t_min, where training and the solvers' grids end.

        x: (n, *shape), in data coordinates.
        context: as of `sample`.
        velocities: draws of v a point (default 1); each is exact if x and v are independent at t = 0, as in the data.
        seed: of v (default 0).
        rtol, atol: tolerances of the adaptive Runge–Kutta steps (default 1e-4).

        Raises ValueError if x has the wrong shape or is not finite, FloatingPointError if the flow diverges.
        """
        from vsmd.samplers.rk45 import log_likelihood

        x, velocities = checks.points("x", x, self.process.shape).cpu(), checks.positive_int("velocities", velocities)
        device, values = self.score.device, []
        context = self.score.context_for(context, len(x), self.context_dropout > 0)
        context = None if context is None else context.to(device)
        for j in range(velocities if self.process.k == 2 else 1):
            a = self.process.to_directions(x).float()[:, None]
            extra = torch.full((len(x),), self.process.units.log_det, dtype=torch.float64)
            if self.process.k == 2:
                v, log_density = self.process.velocity(a[:, 0], random.generator(seed, "velocity", j))
                a, extra = torch.cat([a, v[:, None].to(a)], 1), extra - log_density
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


def load(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model that `Model.save` wrote, ready to sample; nothing in the file is run.

    path: of the file. A network, basis or method of your own must have its line in its table.
    device: of the network, where it computes (default "cpu").

    Raises ValueError naming the path if the file is missing, damaged or foreign.
    """
    tensors, info = files.read(path, FORMAT)
    place = checks.device("device", device)
    with files.refusing(path):
        model = from_state(tensors, info)
    model.network.to(place)
    return model


def state(model: Model) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON settings from which `from_state` makes the model again; ValueError for a network of others."""
    process, network = model.process, networks.describe(model.network)
    if "settings" not in network:
        said = "cannot be saved: it must have `name` and `settings` as vsmd's own"
        raise ValueError(f"network={network['class']}: {said}")
    tensors = files.prefixed("network", model.network.state_dict())
    tensors |= files.prefixed("process", dict(zip(RATES, process.constant)) | process.known()._asdict())
    tensors |= files.prefixed("basis", process.basis.tensors) | files.prefixed("units", process.units.tensors)
    for part, values in process.learned().items():
        tensors |= files.prefixed(part, values)
    info = {"process": process.settings, "network": network, "history": model.history, "t_min": model.t_min}
    info |= {"context_dropout": model.context_dropout} if model.context_dropout else {}
    return tensors, info


def from_state(tensors: dict[str, Tensor], info: dict[str, Any]) -> Model:
    """The model of `state`, on the CPU, its network ready for evaluation."""
    stored.check(tensors, info)
    settings, fields, prior = dict(info["process"]), files.part(tensors, "process"), files.part(tensors, "prior")
    shape = tuple(settings["shape"])
    settings |= {"shape": shape, "schedule": BetaSchedule(**settings["schedule"])}
    checks.one_of("method", settings["method"], METHODS)
    basis = BASES[checks.one_of("basis", settings["basis"], BASES)]
    settings["basis"] = basis(shape, files.part(tensors, "basis"))
    units = Units(checks.one_of("units", settings.pop("units", "raw"), UNITS), files.part(tensors, "units"))
    if not units.known:
        raise ValueError(f"units={units.name!r}: their tensors are missing")
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
        units=units,
    )
    weights, about = files.part(tensors, "network"), info["network"]
    with stored.within(weights, about["settings"], shape):
        network = networks.build(about["name"], **about["settings"])
    network.load_state_dict(weights)
    return Model(process, network.eval(), info["history"], info["t_min"], info.get("context_dropout", 0.0))
