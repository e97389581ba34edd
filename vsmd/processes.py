r"""Forward processes: beta and A as data, and everything that follows from them in closed form.

A process acts on the centred data, in its units (`vsmd.units`) and in the *directions* of its basis (`vsmd.bases`), in
which A is diagonal. A state is a tensor (n, k, *shape), k = 1 (overdamped) or 2 (x and v), in those directions.
Processes are immutable: `with_data`, `with_rates` and the like return new ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from vsmd import checks, kernels, messages
from vsmd.bases import Basis, Stream, basis_of
from vsmd.coefficients import Coefficients, Transition
from vsmd.kernels import Channel, Kernel, Matrix
from vsmd.moments import Moments
from vsmd.piecewise import Piecewise
from vsmd.priors import COMPONENTS, LOG_2PI, PRIORS, GaussianPrior, Lift, Mixture, MixturePrior, Prior, gaussian_kl
from vsmd.rates import Rates
from vsmd.steering import Steering
from vsmd.units import RAW, ROUNDING, UNITS, Units

if TYPE_CHECKING:
    from vsmd.couplings import MixtureFit


@dataclass(frozen=True, eq=False)
class ForwardProcess(Rates):
    r"""A linear forward process of the family, paper (5) and (15), over t in [0, 1].

    momentum:    dx = (beta/2) v dt,  dv = -(beta/2)(s x + gamma c v) dt + sqrt(beta gamma) dw,
                 s = 1 - 2 gamma A_x (stiffness), c = 1 - 2 A_v (friction), c = (2/gamma) sqrt(R s) by (14);
    overdamped:  dx = -(beta/2) (1 - 2 A) x dt + sqrt(beta) dw.

    constant: stiffness and friction (s, c), or (D,), on the pieces of a uniform grid of [0, 1], each (pieces, *shape)
    float64; a steered process has those of its reference there and computes A_t from the data's moments. basis: the
    directions. Build one with `forward_process`, which checks the arguments.
    """

    prior: str
    score_matching: str
    basis: Basis
    moments: Moments | None = None
    mixture: Mixture | None = None  # law of the statistic at t = 1 that a mixture or empirical prior draws from
    units: Units = RAW

    learned_fields: ClassVar[tuple[str, ...]] = ("mixture",)
    controlled: ClassVar[bool] = False  # whether the flow has a control beside the score (`vsmd.bridges`)

    @property
    def settings(self) -> dict[str, Any]:
        """The plain values that define the process, apart from A, the basis's tensors and moments (JSON)."""
        names = ("method", "gamma", "damping", "variational_score", "prior", "score_matching")
        plain = {"shape": list(self.shape), "schedule": dataclasses.asdict(self.schedule), "basis": self.basis.name}
        plain |= {} if self.units.name == "raw" else {"units": self.units.name}
        return plain | {n: getattr(self, n) for n in names}

    def with_moments(self, mean: Tensor, var: Tensor, basis: Basis | None = None, units: Units | None = None) -> Self:
        """The same process knowing the data's mean, their variance per direction, and the basis and units of them.

        Raises ValueError for moments or a basis of another shape, what is not finite, or a negative variance; for units
        that only data can tell.
        """
        basis = self.basis if basis is None else basis_of(basis, self.shape)
        units = self.units if units is None else units
        if not units.known:
            raise ValueError(f"units={units.name!r}: are measured on data; call with_data")
        moments = Moments.given(mean, var, self.shape)
        return self._anew(moments=moments, basis=basis, units=units)

    def with_units(self, units: str) -> Self:
        """The same process in units of that name ("raw", "standardised", "whitened"), before data."""
        return self._anew(units=Units(checks.one_of("units", units, UNITS)), moments=None)

    def with_data(self, data: Stream) -> Self:
        """The same process with moments, units and basis of data (n, *shape), or of a stream of such batches."""
        data = checks.tensor("data", data) if hasattr(data, "dtype") or hasattr(data, "dtypes") else data
        if isinstance(data, Tensor) and tuple(data.shape[1:]) != self.shape:
            raise ValueError(f"data: shape {tuple(data.shape)}; must be (n, {', '.join(map(str, self.shape))})")
        if self.units.name == "raw":
            moments, basis = self.basis.fitted(data)
            return self.with_moments(*moments, basis)
        mean, units = self.units.fitted(data)
        (_, var), basis = self.basis.fitted(units.seen(data, mean))
        return self.with_moments(mean, torch.where(var > ROUNDING, var, torch.zeros_like(var)), basis, units)

    def coupled(
        self,
        data: Tensor | Callable[[], Tensor],
        settings: MixtureFit | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """The same process: a linear one has nothing but moments to learn from data. See `vsmd.bridges`."""
        return self

    def learned(self) -> dict[str, dict[str, Any]]:
        """Tensors beyond A, moments, basis and units, by the part of a model file that they are."""
        return {} if self.mixture is None else {"prior": self.mixture._asdict()}

    def known(self) -> Moments:
        """The data's moments; ValueError before `fit` or `with_moments`."""
        if self.moments is None:
            raise ValueError("moments=None: this process has not seen data; fit it or call with_moments(mean, var)")
        return self.moments

    def to_directions(self, x: Tensor) -> Tensor:
        """Centre x (n, *shape) in its own precision, take it to the process's units and turn it into its directions."""
        return self.basis.into(self.units.into(x - self.known().mean.to(x)))

    def standardised(self, x: Tensor) -> Tensor:
        """x (n, *shape) in directions, over their standard deviations (1 where the data do not vary), float32."""
        return (self.to_directions(x) / self.known().unit.to(x)).float()

    def from_directions(self, z: Tensor) -> Tensor:
        """Inverse of `to_directions`; float64 where the mean is so large that float32 would lose the data."""
        x = self.units.back(self.basis.back(z))
        x = x.double() if self.units.digits_lost(*self.known()) else x
        return x + self.known().mean.to(x)

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

    def spread(self, t: Tensor) -> tuple[Channel, tuple[Tensor, ...]]:
        """The channel at times t (n,), and the Cholesky entries of S_t: (L,), or (L_xx, L_vx, L_vv)."""
        kernel = self.kernel(t)
        channel = kernels.channel(kernel, kernels.lower_cholesky(kernel), self.known().std)
        last = (-channel.gain[-1]).rsqrt()  # gain_v = -Var(v | x)^{-1}
        if self.k == 1:
            return channel, (last,)
        law = self.covariance(kernel, self.known().var)
        lxx = law[0][0].sqrt()
        return channel, (lxx, law[0][1] / lxx, last)

    def ends(self, x: Tensor, stream: torch.Generator) -> Tensor | None:
        """What training draws of a_1 given each of x (n, *shape), in data coordinates: nothing."""
        return None

    def velocity(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """A draw of v_0 given each of x (n, *shape) in directions, and its log-density in nats, float64 (n,)."""
        v = torch.randn(x.shape, generator=stream, dtype=x.dtype)
        return v, -0.5 * (v.double().square() + LOG_2PI).flatten(1).sum(1)

    def transition(self, t: float | Tensor) -> Transition:
        """Law of a_t given x_0, N(F(t) (x_0, 0), Sigma_t), as F and Sigma_t (n, *shape, k, k), float64.

            hybrid score matching: Sigma_t = F diag(0, 1) F' + N, v_0 ~ N(0, 1) marginalised;   plain: Sigma_t = N.

        t: a number or a tensor (n,) of times in (0, 1]; for a number the results have no n.
        Raises ValueError for other times; for a steered process that has not seen data.
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.numel() == 0 or not bool(((times > 0) & (times <= 1)).all()):
            raise ValueError(f"t={messages.told(t)}: times must be in (0, 1]")
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
        if not self.steered and not self.controlled:
            return self.terminal(0.0)[1]
        one = torch.full(self.shape, self.reference_variance(), dtype=torch.float64)
        return ((one,),) if self.k == 1 else ((one, 0 * one), (0 * one, one))

    def with_prior(
        self, name: str, data: Tensor | None = None, components: int = COMPONENTS, seed: int = 0
    ) -> ForwardProcess:
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

    def moments_kl(self, mean: Tensor | float, var: Tensor | float) -> Tensor:
        """KL(N(m_1, S_1) || N(0, Sigma_{1|0})) per direction, in nats, jointly in (x, v) with Var v_0 = 1; (*shape).

        A steered process has N(0, Sigma_T) for prior and is steered for `var` if it has not seen data.

        mean: of the data per direction, a number or (*shape); what is left after centring, usually 0.
        var: of the data per direction, a number or (*shape), >= 0.

        Raises ValueError for moments of another shape, what is not finite, or a negative variance.
        """
        mean, var = Moments.given(mean, var, self.shape)
        process = self.with_moments(mean, var) if self.steered and self.moments is None else self
        kernel, law = process.terminal(var)
        return gaussian_kl(tuple(row[0] * mean for row in kernel.mean), law, process._gaussian_prior())

    def prior_kl(self, data: Stream, units: str = "standardised") -> Tensor:
        """`moments_kl` of the data's variances: nats per direction (*shape) between the end and the prior "gaussian".

        It tells before training whether beta suffices: well below .1 is safe, above 1 the widest directions are not
        covered. It sees two moments: `vsmd.diagnostics.prior_gap` sees the law, and the prior that the process has.

        data: (n, *shape), in data coordinates, or batches of such. units: what `vsmd.fit` gets (default its default).
        """
        process = self.with_units(units).with_data(data)
        return process.moments_kl(0.0, process.known().var)
