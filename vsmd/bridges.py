r"""Processes whose variational score is a mixture of linear ones: forward bridges that end in the prior.

The controlled process of a potential phi_T (`vsmd.potentials`) that is fitted as a coupling (`vsmd.couplings`). Given
x_0 and a_T it is the reference's bridge, v_0 ~ N(0, 1) marginalised: a_t = F x_0 + J Delta + N(0, B),

    Delta = a_T - F_T x_0,  J = Sigma_t Phi' Sigma_T^{-1},  B = (I - J Phi) Sigma_t (I - J Phi)' + J N J',

Phi and N over [t, T], the same k x k matrices in all directions. Its law is phi_t(a) times the integral of
rho(x_0)/Z(x_0) N(a; F x_0, Sigma_t), so

    grad_v log rho_t = grad_v log phi_t + s(a),   s(a) = gain . a + out E[T | z]:

s is the score of the reference started in a tilted law of x_0. One number z a direction informs about x_0, as for
linear processes, and networks and targets are theirs; new are the moments of z and T, closed forms in those of
(x_0, Delta). The reverse SDE is the reference's with s for a score, the probability flow has (s - grad_v log phi_t)/2.
v_0 is free: the process chooses its law given x_0, at the Kullback–Leibler cost that this has to N(0, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from vsmd import checks, kernels, random
from vsmd.bases import Stream
from vsmd.coefficients import Coefficients, Transition
from vsmd.couplings import Coupling, Fit, MixtureFit, fitted
from vsmd.kernels import Channel, Kernel, Matrix, matmul, transpose
from vsmd.potentials import Potential
from vsmd.priors import LOG_2PI, GaussianPrior, gaussian_kl
from vsmd.processes import ForwardProcess
from vsmd.steering import inverse

FITTED = 2**25  # values of the data that the potential is fitted to
COUPLED = 40_000  # points whose coupling the moments are measured on
SHORTEST = 1e-9  # step of the clock: a state at t = 0 or 1 is one there
LEAST = 1e-12  # of variances that are divided by


class Bridge(NamedTuple):
    """F (k), Sigma_t, J and B at times t (n,), entries (n, 1…)."""

    mean: tuple[Tensor, ...]
    law: Matrix
    gain: Matrix
    noise: Matrix


class Statistic(NamedTuple):
    """The reference's channel, z = (snr xi + n)/norm and T = (xi - snr n)/norm, and its moments under the coupling.

    row: n = row . (a_t - F x_0). reach, noise: n = reach . Delta + N(0, noise). var: E z^2. slope, rest: of T
    on z, and the deviation of what that leaves. norm^2 = 1 + snr^2.
    """

    channel: Channel
    row: tuple[Tensor, ...]
    reach: tuple[Tensor, ...]
    noise: Tensor
    var: Tensor
    slope: Tensor
    rest: Tensor


@dataclass(frozen=True, eq=False)
class MixtureProcess(ForwardProcess):
    """A forward process with a mixture for variational score; `coupled` fits it to data.

    coupling: of the fit. second: E[q q'], q = (xi, Delta), per direction, (1 + k, 1 + k, *shape).
    """

    coupling: Coupling | None = None
    second: Tensor | None = None

    learned_fields: ClassVar[tuple[str, ...]] = ("mixture", "coupling", "second")
    controlled: ClassVar[bool] = True

    def coupled(
        self,
        data: Tensor | Callable[[], Tensor],
        settings: MixtureFit | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """The same process with a potential fitted to data (n, *shape), or what a function gives, to end in the prior.

        settings: of the fit (default `MixtureFit()`). progress: show a bar.
        Raises ValueError for more components than points, and for a fit beyond memory; before it begins.
        """
        settings, data = settings or MixtureFit(), data if isinstance(data, Tensor) else data()
        settings.check(len(data), self.dim, self.k)
        order = torch.randperm(len(data), generator=random.generator(seed, "mixture data"))
        x = self.to_directions(data[order[: max(2, FITTED // self.dim)]].cpu()).double()
        whole = self.reference(0.0, 1.0)
        lower = torch.linalg.cholesky(kernels.stacked(self.covariance(whole, 0.0)).view(self.k, self.k))
        start = torch.linalg.solve_triangular(lower, kernels.stacked(whole.mean).view(lower.shape)[:, :1], upper=False)
        std = self.known().std.flatten()
        fit = Fit(x.flatten(1), std, lower, start[:, 0], self.reference_variance(), seed)
        coupling = fitted(fit, settings, progress)
        second = coupling.moments(x[:COUPLED], self.known().unit.double(), seed)
        return dataclasses.replace(self, coupling=coupling, second=second)

    def coupling_of_data(self) -> Coupling:
        """The coupling; ValueError before data."""
        if self.coupling is None:
            raise ValueError("coupling=None: this mixture process has not seen data; fit it or call coupled(data)")
        return self.coupling

    def learned(self) -> dict[str, dict[str, Any]]:
        """The coupling and its second moments."""
        return {"coupling": self.coupling_of_data()._asdict() | {"second": self.second}}

    def reference(self, start: float | Tensor, end: float | Tensor) -> Kernel:
        """The reference's kernel between times, numbers or (n,): entries (n or 1, 1…), the same in all directions."""
        axes = [1] * len(self.shape)
        clocks = [self.schedule.clock(torch.as_tensor(t, dtype=torch.float64)).view(-1, *axes) for t in (start, end)]
        tau, one = (clocks[1] - clocks[0]).clamp(min=SHORTEST), torch.ones((), dtype=torch.float64)
        if self.k == 1:
            return kernels.overdamped(tau, one)
        return kernels.momentum(tau, one, self.constant[1].flatten()[0], self.gamma)

    def bridge(self, t: Tensor) -> Bridge:
        """The bridge at times t (n,) in [0, 1]."""
        before, after = self.reference(0.0, t), self.reference(t, 1.0)
        law, size = self.covariance(before, 0.0), range(self.k)
        gain = matmul(matmul(law, transpose(after.mean)), inverse(self.covariance(self.reference(0.0, 1.0), 0.0)))
        back = tuple(
            tuple(float(i == j) - e for j, e in enumerate(row)) for i, row in enumerate(matmul(gain, after.mean))
        )
        parts = (matmul(matmul(m, cov), transpose(m)) for m, cov in ((back, law), (gain, after.noise)))
        noise = tuple(tuple(map(torch.add, *rows)) for rows in zip(*parts))
        return Bridge(tuple(before.mean[i][0] for i in size), law, gain, noise)

    def states(self, x: Tensor, t: Tensor, stream: torch.Generator) -> Tensor:
        """a_t (n, k, *shape), a draw for each of x (n, *shape) in directions at times t (n,); float64."""
        bridge = self.bridge(t)
        ends = self.coupling_of_data().ends(x, stream).view(len(x), self.k, *self.shape)
        normals = torch.randn(ends.shape, generator=stream, dtype=torch.float64)
        chol, noise = GaussianPrior(bridge.noise).cholesky, normals.unbind(1)
        apart = [chol[0] * noise[0], *(_dot(chol[1:], noise) for _ in noise[1:])]
        rows = zip(bridge.mean, bridge.gain, apart)
        return torch.stack([f * x + _dot(row, ends.unbind(1)) + e for f, row, e in rows], 1)

    def ends(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Delta (n, k, *shape) float32, a draw of the coupling for each of x (n, *shape) in data coordinates."""
        return self.coupling_of_data().ends(self.to_directions(x), stream).float().view(len(x), -1, *self.shape)

    def statistic(self, t: Tensor, bridge: Bridge | None = None) -> Statistic:
        """The channel at times t (n,) and its moments under the coupling; tensors (n, 1… or *shape)."""
        bridge, second, size = bridge or self.bridge(t), self._second(), range(self.k)
        kernel = self.reference(0.0, t)
        chol = kernels.lower_cholesky(kernel)
        raw = kernels.channel(kernel, chol, self.known().std)
        row: tuple[Tensor, ...] = (raw.unit[0] / chol[0],)
        if self.k == 2:
            row = ((raw.unit[0] - raw.unit[1] * chol[1] / chol[2]) / chol[0], raw.unit[1] / chol[2])
        reach = matmul((row,), bridge.gain)[0]
        noise = matmul(matmul((row,), bridge.noise), transpose((row,)))[0][0]
        mixed = _dot(reach, second[0][1:])
        square = noise + _dot(reach, tuple(_dot(reach, second[1 + i][1:]) for i in size))
        snr, whole = raw.snr, second[0][0]
        norm = 1 + snr.square()
        var = ((snr.square() * whole + 2 * snr * mixed + square) / norm).clamp(min=LEAST)
        slope = (snr * (whole - square) + (1 - snr.square()) * mixed) / norm / var
        rest = ((whole * square - mixed.square()) / var).clamp(min=LEAST).sqrt()
        return Statistic(raw, row, reach, noise, var, slope, rest)

    def _second(self) -> Matrix:
        self.coupling_of_data()
        assert self.second is not None
        return tuple(tuple(row) for row in self.second)

    def channel(self, t: Tensor) -> tuple[tuple[Tensor, ...], Channel]:
        """Cholesky entries of Sigma_t, and the channel of s(a): z and target of variance 1, uncorrelated."""
        bridge = self.bridge(t)
        return GaussianPrior(bridge.law).cholesky, _standardised(self.statistic(t, bridge))

    def snr(self, t: Tensor) -> tuple[Tensor, ...]:
        """What training needs at times t: snr and kappa, then var, slope, rest, noise and the k of reach."""
        s = self.statistic(t)
        return s.channel.snr, s.channel.kappa * s.rest, s.var, s.slope, s.rest, s.noise, *s.reach

    def law(self, bridge: Bridge) -> tuple[tuple[Tensor, ...], Matrix]:
        """E[xi a_t] and E[a_t a_t'] at the times of a bridge, entries (n, *shape)."""
        second, unit, size = self._second(), self.known().unit.double(), range(self.k)
        signal = [f * unit for f in bridge.mean]
        pushed = [_dot(row, second[0][1:]) for row in bridge.gain]
        spread = matmul(matmul(bridge.gain, tuple(row[1:] for row in second[1:])), transpose(bridge.gain))
        mixed = tuple(signal[i] * second[0][0] + pushed[i] for i in size)
        return mixed, tuple(
            tuple(mixed[i] * signal[j] + signal[i] * pushed[j] + spread[i][j] + bridge.noise[i][j] for j in size)
            for i in size
        )

    def spread(self, t: Tensor) -> tuple[Channel, tuple[Tensor, ...]]:
        """The channel at times t (n,), and the Cholesky entries of E[a_t a_t']."""
        bridge = self.bridge(t)
        return _standardised(self.statistic(t, bridge)), GaussianPrior(self.law(bridge)[1]).cholesky

    def potential(self, t: float) -> Potential:
        """phi_t."""
        end = self.coupling_of_data().potential()
        return end if t >= 1 else end.earlier(self.reference(t, 1.0))

    def coefficients(
        self,
        t: Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        within: Tensor | None = None,
    ) -> Coefficients:
        """As of every process, with phi_t, what is linear in s - grad_v log phi_t, and what denoising takes."""
        t, size = t.to(torch.float64), range(self.k)
        table, bridge = super().coefficients(t, torch.float64, "cpu", within), self.bridge(t)
        (raw, row, _, _, var, slope, rest), (mixed, law) = self.statistic(t, bridge), self.law(bridge)
        norm, back, unit = (1 + raw.snr.square()).sqrt(), inverse(law), self.known().unit.double()
        # E[T a_t'], T = (xi - snr n)/norm with n = row . (a_t - F x_0), and from it what s has on a_t
        noise = [_dot(row, tuple(law[j][i] - bridge.mean[j] * unit * mixed[i] for j in size)) for i in size]
        target = tuple((mixed[i] - raw.snr * noise[i]) / norm for i in size)
        gain = [raw.gain[i] + raw.out * _dot(target, transpose(back)[i]) for i in size]
        linear = tuple(table.gain[i] - 2 * gain[i] - back[-1][i] for i in size)
        potentials = [self.potential(float(v)) for v in t]
        centred = [p._replace(constant=p.constant - p.constant.max()) for p in potentials]
        table = table._replace(
            potential=tuple(map(torch.stack, zip(*centred))),
            linear=linear,
            clean=(var.sqrt() * (raw.snr + slope) / norm, rest / norm),
        )
        return table.map(lambda e: e.to(device, dtype))

    def velocity(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """A draw of v_0 given each of x (n, *shape) in directions, and its log-density in nats (n,); float64."""
        x = x.double()
        v = self.states(x, torch.zeros(len(x), dtype=torch.float64), stream)[:, 1]
        normal = -0.5 * (v.square() + LOG_2PI).flatten(1).sum(1)
        return v, normal + self.potential(0.0).log(torch.stack([x, v], 1)) - self.coupling_of_data().log_z(x)

    def terminal(self, var: Tensor | float) -> tuple[Kernel, Matrix]:
        """The reference's kernel to t = 1 and E[a_1 a_1'] of the coupling, whatever `var` is."""
        bridge = self.bridge(torch.ones(1, dtype=torch.float64))
        law = tuple(tuple(e[0] for e in row) for row in self.law(bridge)[1])
        return self.reference(0.0, 1.0).map(lambda e: e[0]), law

    def with_prior(self, name: str, data: Tensor | None = None, components: int = 32, seed: int = 0) -> ForwardProcess:
        """The same process with another prior, "gaussian" or "moments"; ValueError for the others."""
        return dataclasses.replace(self, prior=check_prior(name))

    def prior_kl(self, data: Stream | None = None, units: str = "standardised") -> Tensor:
        """`moments_kl` of the fitted coupling, which has seen its data; ValueError before."""
        return self.moments_kl()

    def moments_kl(self, mean: Tensor | float = 0.0, var: Tensor | float = 1.0) -> Tensor:
        """KL of Gaussians with the coupling's second moments of a_1 and the prior's, per direction."""
        law = self.terminal(1.0)[1]
        return gaussian_kl(tuple(torch.zeros((), dtype=torch.float64) for _ in law), law, self._gaussian_prior())

    def transition(self, t: float | Tensor) -> Transition:
        """Refused: a_t given x_0 is a Gaussian mixture with weights that depend on x_0."""
        raise ValueError("transition: of a mixture process is no Gaussian; states(x, t, stream) draws it")


def check_prior(name: str) -> str:
    """The prior's name; ValueError unless a mixture process can start from it."""
    return checks.one_of("prior (with variational_score='mixture')", name, ("gaussian", "moments"))


def _standardised(s: Statistic) -> Channel:
    """The channel with z and target of variance 1 and uncorrelated."""
    raw, std = s.channel, s.var.sqrt()
    gain = tuple(g + raw.out * s.slope * i for g, i in zip(raw.gain, raw.inp))
    return raw._replace(inp=tuple(i / std for i in raw.inp), gain=gain, out=raw.out * s.rest, kappa=raw.kappa * s.rest)


def _dot(row: tuple[Tensor, ...], column: tuple[Tensor, ...]) -> Tensor:
    """sum_i row_i column_i."""
    return row[0] * column[0] if len(row) == 1 else row[0] * column[0] + row[1] * column[1]
