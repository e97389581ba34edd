r"""Forward processes: beta and A as data, and everything that follows from them in closed form.

A process acts on the centred data in the *directions* of its basis (`vsmd.bases`), in which A is diagonal. A state is a
tensor (n, k, *shape), k = 1 (overdamped) or 2 (x and v), in those directions. Processes are immutable: `with_data`,
`with_rates` and the like return new ones.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vsmd import checks, kernels
from vsmd.bases import Basis, Stream, basis_of
from vsmd.coefficients import Coefficients, Transition
from vsmd.kernels import Channel, Kernel, Matrix
from vsmd.methods import METHODS, Method, tied_friction
from vsmd.moments import Moments
from vsmd.piecewise import Piecewise
from vsmd.priors import PRIORS, GaussianPrior, Lift, Mixture, MixturePrior, Prior, gaussian_kl
from vsmd.schedules import BetaSchedule
from vsmd.steering import Steering


@dataclass(frozen=True, eq=False)
class ForwardProcess:
    r"""A linear forward process of the family, paper (5) and (15), over t in [0, 1].

    momentum:    dx = (beta/2) v dt,  dv = -(beta/2)(s x + gamma c v) dt + sqrt(beta gamma) dw,
                 s = 1 - 2 gamma A_x (stiffness), c = 1 - 2 A_v (friction), c = (2/gamma) sqrt(R s) by (14);
    overdamped:  dx = -(beta/2) (1 - 2 A) x dt + sqrt(beta) dw.

    constant: stiffness and friction (s, c), or (D,), on the pieces of a uniform grid of [0, 1], each (pieces, *shape)
    float64; a steered process has those of its reference there and computes A_t from the data's moments. basis: the
    directions. Build one with `forward_process`, which checks the arguments.
    """

    method: str
    shape: tuple[int, ...]
    schedule: BetaSchedule
    gamma: float
    damping: float | None
    variational_score: str
    prior: str
    score_matching: str
    constant: tuple[Tensor, ...]
    basis: Basis
    moments: Moments | None = None
    mixture: Mixture | None = None  # law of the statistic at t = 1 that a mixture or empirical prior draws from

    @property
    def row(self) -> Method:
        """The method's row of the table."""
        return METHODS[self.method]

    @property
    def k(self) -> int:
        """Order of the dynamics: 1 overdamped, 2 with velocity."""
        return self.row.k

    @property
    def dim(self) -> int:
        """Number of data coordinates d."""
        return math.prod(self.shape)

    @property
    def pieces(self) -> int:
        """Number of pieces of the piecewise-constant A_t."""
        return len(self.constant[0])

    @property
    def steered(self) -> bool:
        """Whether A_t is the closed form in the data's moments."""
        return self.variational_score == "steered"

    @property
    def stiffness(self) -> Tensor:
        """s = 1 - 2 gamma A_x, or D = 1 - 2 A in the overdamped case; (pieces, *shape). See `rates` if steered."""
        return self._on_pieces("stiffness")[0]

    @property
    def friction(self) -> Tensor:
        """c = 1 - 2 A_v, (pieces, *shape); only processes with velocity have one. See `rates` if steered."""
        if self.k == 1:
            raise ValueError(f"friction: {self.method} has no velocity; CLD, ULD, VSCLD and VSULD have")
        return self._on_pieces("friction")[1]

    @property
    def a_x(self) -> Tensor:
        """A_x = (1 - s)/(2 gamma), or A = (1 - D)/2 in the overdamped case; (pieces, *shape)."""
        return (1 - self._on_pieces("A")[0]) / (2 * self.per_a)

    @property
    def a_v(self) -> Tensor | None:
        """A_v = (1 - c)/2, (pieces, *shape); None without velocity."""
        return None if self.k == 1 else (1 - self._on_pieces("A")[1]) / 2

    @property
    def per_a(self) -> float:
        """-1/2 of the stiffness's change per unit of A: gamma, or 1 without velocity."""
        return self.gamma if self.k == 2 else 1.0

    def _on_pieces(self, name: str) -> tuple[Tensor, ...]:
        if self.steered:
            raise ValueError(f"{name}: of a steered process varies with time; rates(t) gives it")
        return self.constant

    @property
    def settings(self) -> dict[str, Any]:
        """The plain values that define the process, apart from A, the basis's tensors and moments (JSON)."""
        names = ("method", "gamma", "damping", "variational_score", "prior", "score_matching")
        plain = {"shape": list(self.shape), "schedule": dataclasses.asdict(self.schedule), "basis": self.basis.name}
        return plain | {n: getattr(self, n) for n in names}

    def with_moments(self, mean: Tensor, var: Tensor, basis: Basis | None = None) -> ForwardProcess:
        """The same process knowing the data's mean, their variance per direction, and the basis that was fitted.

        Raises ValueError for moments or a basis of another shape, what is not finite, or a negative variance.
        """
        basis = self.basis if basis is None else basis_of(basis, self.shape)
        return dataclasses.replace(self, moments=Moments.given(mean, var, self.shape), basis=basis, mixture=None)

    def with_data(self, data: Stream) -> ForwardProcess:
        """The same process with moments and basis of data (n, *shape), or of a stream of such batches."""
        moments, basis = self.basis.fitted(data)
        return self.with_moments(*moments, basis)

    def with_rates(self, stiffness: Tensor, friction: Tensor | None = None) -> ForwardProcess:
        """The same process with this stiffness and – with velocity – friction, (pieces, *shape)."""
        self._on_pieces("A")
        rates = (stiffness,) if self.k == 1 or friction is None else (stiffness, friction)
        return dataclasses.replace(self, constant=tuple(e.to(torch.float64) for e in rates), mixture=None)

    def with_variational_score(self, a_x: Tensor, a_v: Tensor | None) -> ForwardProcess:
        """The same process with this A_x and – with velocity – A_v, (pieces, *shape)."""
        return self.with_rates(1 - 2 * self.per_a * a_x, None if a_v is None else 1 - 2 * a_v)

    def with_stiffness(self, stiffness: Tensor) -> ForwardProcess:
        """The same process with this stiffness (pieces, *shape), > 0 with velocity, and the friction tied to it."""
        least = float(stiffness.min()) if bool(torch.isfinite(stiffness).all()) else math.nan
        if math.isnan(least) or (self.k == 2 and least <= 0):
            raise ValueError(f"stiffness={least:.4g} at its least: must be finite and > 0")
        tied = None if self.damping is None else tied_friction(stiffness, self.gamma, self.damping)
        return self.with_rates(stiffness, tied)

    def known(self) -> Moments:
        """The data's moments; ValueError before `fit` or `with_moments`."""
        if self.moments is None:
            raise ValueError("moments=None: this process has not seen data; fit it or call with_moments(mean, var)")
        return self.moments

    def to_directions(self, x: Tensor) -> Tensor:
        """Centre x (n, *shape) and turn it into the process's directions."""
        return self.basis.into(x - self.known().mean.to(x))

    def standardised(self, x: Tensor) -> Tensor:
        """x (n, *shape) in directions, over their standard deviations (1 where the data do not vary)."""
        return self.to_directions(x) / self.known().unit.to(x)

    def from_directions(self, z: Tensor) -> Tensor:
        """Inverse of `to_directions`."""
        return self.basis.back(z) + self.known().mean.to(z)

    @cached_property
    def dynamics(self) -> Piecewise | Steering:
        """What gives kernels and rates: constant on pieces, or steered (ValueError before data)."""
        if self.steered:
            friction = None if self.k == 1 else float(self.constant[1].flatten()[0])
            return Steering(self.known().std, friction, self.gamma, self.schedule, self.reference_variance())
        return Piecewise(self.constant, self.gamma, self.schedule)

    def kernel(self, t: Tensor) -> Kernel:
        """Kernel a_0 -> a_t at times t (n,), entries (n, *shape), in closed form or composed of exact steps."""
        return self.dynamics.kernel(t.to(torch.float64))

    def rates(self, t: Tensor) -> tuple[Tensor, ...]:
        """Stiffness and friction (s, c), or (D,) if overdamped, at times t (n,); (n, *shape) float64."""
        return self.dynamics.rates(t.to(torch.float64))

    def channel(self, t: Tensor) -> tuple[tuple[Tensor, ...], Channel]:
        """Cholesky entries of Sigma_{t|0} and the channel for x_0 at times t (n,)."""
        kernel = self.kernel(t)
        chol = kernels.lower_cholesky(kernel)
        return chol, kernels.channel(kernel, chol, self.known().std)

    def transition(self, t: float | Tensor) -> Transition:
        """Law of a_t given x_0, N(F(t) (x_0, 0), Sigma_t), as F and Sigma_t (n, *shape, k, k), float64.

            hybrid score matching: Sigma_t = F diag(0, 1) F' + N, v_0 ~ N(0, 1) marginalised;   plain: Sigma_t = N.

        t: a number or a tensor (n,) of times in (0, 1]; for a number the results have no n.
        Raises ValueError for other times; for a steered process that has not seen data.
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.numel() == 0 or not bool(((times > 0) & (times <= 1)).all()):
            raise ValueError(f"t={t!r}: times must be in (0, 1]")
        kernel = self.kernel(times.reshape(-1))
        cov = self.covariance(kernel, 0.0, 1.0 if self.score_matching == "hybrid" else 0.0)
        dense = (kernels.stacked(matrix) for matrix in (kernel.mean, cov))
        return Transition(*(matrix[0] if times.ndim == 0 else matrix for matrix in dense))

    covariance = staticmethod(kernels.covariance)

    def coefficients(
        self,
        t: Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        within: Tensor | None = None,
    ) -> Coefficients:
        """Drift, noise and score coefficients at times t (n,) in (0, 1]: one table for a whole grid of steps.

        The drift jumps at the knots of a piecewise-constant A; `within` (n,) gives times inside the pieces meant.
        """
        t = t.to(torch.float64)
        _, channel = self.channel(t)
        beta = self.schedule.beta(t).view(-1, *[1] * len(self.shape))
        rates = self.dynamics.rates(t, within)
        s, *c = rates
        row = (beta / 2 * s, *(beta / 2 * self.gamma * e for e in c))
        inp, gain, out, snr, kappa, _ = channel
        values = Coefficients(beta, rates, row, beta * self.per_a, inp, gain, out, kernels.log_level(snr), kappa)
        return values.map(lambda e: e.to(device, dtype))

    def snr(self, t: Tensor) -> tuple[Tensor, ...]:
        """Signal-to-noise amplitude and kappa of the channel at times t: all that score training needs; float64."""
        _, channel = self.channel(t)
        return channel.snr, channel.kappa

    def reference_variance(self) -> float:
        """Per-component variance of the reference's stationary law (A_x = 0): 1, or gamma/(2 sqrt R) with velocity."""
        return 1.0 if self.damping is None else self.gamma / (2 * math.sqrt(self.damping))

    def terminal(self, var: Tensor | float) -> tuple[Kernel, Matrix]:
        """The kernel to t = 1 and the covariance S_1 there for data of variance `var` (0: Sigma_{1|0})."""
        kernel = self.kernel(torch.ones(1)).map(lambda e: e[0])
        return kernel, self.covariance(kernel, var)

    def prior_law(self) -> Prior:
        """The law that generation starts from, in directions; ValueError where it needs data and has not seen any.

        "gaussian": N(0, Sigma_{1|0}), steered N(0, Sigma_T); "moments": N(0, S_1); else the statistic's law, lifted.
        """
        if self.prior in ("gaussian", "moments"):
            moments = self.prior == "moments"
            return GaussianPrior(self.terminal(self.known().var)[1] if moments else self._gaussian_prior())
        if self.mixture is None:
            raise ValueError(f"prior={self.prior!r}: has not seen data; fit the process or call with_prior(name, data)")
        chol, channel = self.channel(torch.ones(1, dtype=torch.float64))
        return MixturePrior(Lift(tuple(e[0] for e in chol), channel.map(lambda e: e[0])), self.mixture)

    def _gaussian_prior(self) -> Matrix:
        if not self.steered:
            return self.terminal(0.0)[1]
        one = torch.full(self.shape, self.reference_variance(), dtype=torch.float64)
        return ((one,),) if self.k == 1 else ((one, 0 * one), (0 * one, one))

    def with_prior(self, name: str, data: Tensor | None = None, components: int = 32, seed: int = 0) -> ForwardProcess:
        """The same process with another law of a_1 for generation to start from.

        name: "gaussian", "moments", "mixture" (EM on draws of the statistic z of a_1, `kernels.Channel`) or "empirical"
            (the points through the kernel; they are kept, so check samples with `metrics.memorisation`).
        data: (n, *shape), in data coordinates; needed for "mixture" and "empirical".
        components: of the mixture, at most n (default 32).
        seed: of EM and its draws (default 0).

        Raises ValueError for another name, without data, or for more components than points.
        """
        name = checks.one_of("prior", name, PRIORS)
        mixture = None
        if name in ("mixture", "empirical"):
            if data is None:
                raise ValueError(f"prior={name!r}: needs data (n, {', '.join(map(str, self.shape))})")
            xi = self.standardised(data)
            snr = self.snr(torch.ones(1, dtype=torch.float64))[0][0]
            mixture = Mixture.fitted(xi, snr, components, seed) if name == "mixture" else Mixture.empirical(xi, snr)
        return dataclasses.replace(self, prior=name, mixture=mixture)

    def prior_kl(self, mean: Tensor | float, var: Tensor | float) -> Tensor:
        """KL(N(m_1, S_1) || N(0, Sigma_{1|0})) per direction, in nats, jointly in (x, v) with Var v_0 = 1; (*shape).

        It tells before training whether beta suffices: well below .1 is safe, above 1 the widest directions are not
        covered. A steered process has N(0, Sigma_T) for prior and is steered for `var` if it has not seen data.

        mean: of the data per direction, a number or (*shape); what is left after centring, usually 0.
        var: of the data per direction, a number or (*shape), >= 0.

        Raises ValueError for moments of another shape, what is not finite, or a negative variance.
        """
        mean, var = Moments.given(mean, var, self.shape)
        process = self.with_moments(mean, var) if self.steered and self.moments is None else self
        kernel, law = process.terminal(var)
        return gaussian_kl(tuple(row[0] * mean for row in kernel.mean), law, process._gaussian_prior())
