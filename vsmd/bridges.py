r"""Processes whose variational score is a mixture of linear ones: forward bridges that end in the prior.

The controlled process of a potential phi_T (`vsmd.potentials`) fitted as a coupling (`vsmd.couplings`): given x_0 and a_T it
is the reference's bridge, v_0 ~ N(0, 1) marginalised, hence a_t = F_t x_0 + J Delta + N(0, B) with Delta = a_T - F_T x_0,

    J = Sigma_t Phi' Sigma_T^{-1},   B = (I - J Phi) Sigma_t (I - J Phi)' + J N J',   Phi and N over [t, T],

the same k x k matrices in all directions. Its law is rho_t(a) = phi_t(a) int rho(x_0)/Z(x_0) N(a; F_t x_0, Sigma_t) dx_0, so

    grad_v log rho_t = grad_v log phi_t + s(a),   s(a) = gain . a + out E[T | z],

s the score of the reference from a tilted law of x_0: one number z a direction informs about x_0, as it does for linear
processes, and the networks are the same. What is new are the moments of (z, T), closed forms in those of (x_0, Delta).
The reverse SDE is the reference's with s in place of the score; the probability flow has (s - grad_v log phi_t)/2.
v_0 is free: the process chooses its law given x_0, at the Kullback–Leibler cost that it has to N(0, 1).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor

from vsmd import checks, kernels, random
from vsmd.bases import Basis
from vsmd.coefficients import Coefficients, Transition
from vsmd.couplings import Coupling, Fit, MixtureFit, fitted
from vsmd.kernels import Channel, Kernel, Matrix, matmul, transpose
from vsmd.potentials import Potential
from vsmd.priors import GaussianPrior, Prior, gaussian_kl
from vsmd.processes import ForwardProcess
from vsmd.steering import inverse

FITTED = 2**25  # values of the data that the potential is fitted to
COUPLED = 40_000  # points whose coupling the moments are measured on
SHORTEST = 1e-9  # step of the clock: a state at t = 0 or 1 is one there
LEAST = 1e-12  # of variances that are divided by


@dataclass(frozen=True)
class Bridge:
    """The reference's bridge from x_0 to a_T at times t (n,): entries (n, 1…), numbers a time.

    mean: F_t, its x-column. law: Sigma_t. gain, noise: J and B.
    """

    mean: tuple[Tensor, ...]
    law: Matrix
    gain: Matrix
    noise: Matrix


@dataclass(frozen=True, eq=False)
class MixtureProcess(ForwardProcess):
    """A forward process with a mixture for variational score; before data it has none.

    coupling: of the fit. second: E[q q'], q = (xi, Delta), per direction, (1 + k, 1 + k, *shape).
    """

    coupling: Coupling | None = None
    second: Tensor | None = None

    def with_moments(self, mean: Tensor, var: Tensor, basis: Basis | None = None) -> MixtureProcess:
        """The same process knowing moments and basis of data, and not yet a coupling (`coupled`)."""
        process = super().with_moments(mean, var, basis)
        assert isinstance(process, MixtureProcess)
        return dataclasses.replace(process, coupling=None, second=None)

    def coupled(self, data: Tensor, settings: MixtureFit | None = None, seed: int = 0, progress: bool = False) -> Any:
        """The same process with a potential fitted to data (n, *shape), so that it ends in the prior.

        settings: of the fit (default `MixtureFit()`). progress: show a bar.
        Raises ValueError for more components than points, and for a fit beyond memory; before it begins.
        """
        settings = settings or MixtureFit()
        settings.check(len(data), self.dim, self.k)
        order = torch.randperm(len(data), generator=random.generator(seed, "mixture data"))
        x = self.to_directions(data[order[: max(2, FITTED // self.dim)]]).double()
        law = kernels.stacked(self.covariance(self.reference(0.0, 1.0), 0.0)).view(self.k, self.k)
        lower, column = (
            torch.linalg.cholesky(law),
            torch.stack([e[0].reshape(1) for e in self.reference(0.0, 1.0).mean]),
        )
        start = torch.linalg.solve_triangular(lower, column, upper=False)[:, 0]
        fit = Fit(x.flatten(1), self.known().std.flatten(), lower, start, self.reference_variance(), seed)
        coupling = fitted(fit, settings, progress)
        second = coupling.moments(x[:COUPLED], self.known().unit.double(), seed)
        return dataclasses.replace(self, coupling=coupling, second=second)

    def reference(self, start: float | Tensor, end: float | Tensor) -> Kernel:
        """The reference's kernel between two times or those of (n,), entries (n or 1, 1…): the same in all directions."""
        times = (torch.as_tensor(t, dtype=torch.float64).reshape(-1) for t in (start, end))
        first, last = (self.schedule.clock(t).view(-1, *[1] * len(self.shape)) for t in times)
        tau, one = (last - first).clamp(min=SHORTEST), torch.ones((), dtype=torch.float64)
        if self.k == 1:
            return kernels.overdamped(tau, one)
        return kernels.momentum(tau, one, self.constant[1].flatten()[0], self.gamma)

    @cached_property
    def fit_of_data(self) -> tuple[Coupling, Tensor]:
        """Coupling and second moments; ValueError before data."""
        if self.coupling is None or self.second is None:
            raise ValueError("coupling=None: this mixture process has not seen data; fit it or call coupled(data)")
        return self.coupling, self.second

    def bridge(self, t: Tensor) -> Bridge:
        """The bridge at times t (n,) in [0, 1]."""
        before, after = self.reference(0.0, t), self.reference(t, 1.0)
        law = self.covariance(before, 0.0)
        whole = self.covariance(self.reference(0.0, 1.0), 0.0)
        gain = matmul(matmul(law, transpose(after.mean)), inverse(whole))
        carried = matmul(gain, after.mean)
        eye = range(self.k)
        rest = tuple(tuple(float(i == j) - carried[i][j] for j in eye) for i in eye)
        left, right = matmul(matmul(rest, law), transpose(rest)), matmul(matmul(gain, after.noise), transpose(gain))
        noise = tuple(tuple(map(torch.add, *rows)) for rows in zip(left, right))
        return Bridge(tuple(row[0] for row in before.mean), law, gain, noise)

    def states(self, x: Tensor, t: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """a_t and a_t - F_t x_0 (n, k, *shape), a draw for each of x (n, *shape) in directions at times t (n,)."""
        coupling, _ = self.fit_of_data
        bridge = self.bridge(t)
        ends = coupling.ends(x, stream).view(len(x), self.k, *self.shape)
        normals = torch.randn(ends.shape, generator=stream, dtype=torch.float64)
        apart = _applied(bridge.gain, ends) + GaussianPrior(bridge.noise).state(normals)
        return apart + torch.stack([f * x for f in bridge.mean], 1), apart

    def _raw(self, t: Tensor) -> tuple[Channel, tuple[Tensor, ...], Bridge]:
        """The reference's channel at times t, the row that takes a_t - F_t x_0 to the channel's noise, the bridge."""
        kernel, bridge = self.reference(0.0, t), self.bridge(t)
        chol = kernels.lower_cholesky(kernel)
        channel = kernels.channel(kernel, chol, self.known().std)
        unit = channel.unit
        if self.k == 1:
            return channel, (unit[0] / chol[0],), bridge
        return channel, ((unit[0] - unit[1] * chol[1] / chol[2]) / chol[0], unit[1] / chol[2]), bridge

    def _statistics(self, t: Tensor) -> tuple[Channel, tuple[Tensor, ...], Bridge, tuple[Tensor, Tensor, Tensor]]:
        """`_raw`, and E[z^2], the slope of T on z and the deviation of what that leaves."""
        channel, row, bridge = self._raw(t)
        _, second = self.fit_of_data
        reach = matmul((row,), bridge.gain)[0]
        noise = matmul(matmul((row,), bridge.noise), transpose((row,)))[0][0]
        size = range(self.k)
        mixed = sum(reach[i] * second[0, 1 + i] for i in size)
        square = noise + sum(reach[i] * reach[j] * second[1 + i, 1 + j] for i in size for j in size)
        snr, own = channel.snr, second[0, 0]
        norm = 1 + snr.square()
        var = ((snr.square() * own + 2 * snr * mixed + square) / norm).clamp(min=LEAST)
        slope = (snr * (own - square) + (1 - snr.square()) * mixed) / norm / var
        rest = ((own * square - mixed**2) / var).clamp(min=LEAST).sqrt()
        return channel, row, bridge, (var, slope, rest)

    def pair(self, x: Tensor, t: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor, Channel]:
        """Input and target (n, *shape) of the network for x (n, *shape) in directions, and the channel of `channel`."""
        raw, row, _, (var, slope, rest) = self._statistics(t)
        _, apart = self.states(x, t, stream)
        xi, noise = x / self.known().unit, sum(r * apart[:, i] for i, r in enumerate(row))
        norm = (1 + raw.snr.square()).rsqrt()
        z, target = (raw.snr * xi + noise) * norm, (xi - raw.snr * noise) * norm
        return z / var.sqrt(), (target - slope * z) / rest, _normed(raw, var, slope, rest)

    def channel(self, t: Tensor) -> tuple[tuple[Tensor, ...], Channel]:
        """Cholesky entries of Sigma_t, and the channel of s(a): z and target of variance 1, uncorrelated."""
        raw, _, bridge, moments = self._statistics(t)
        return GaussianPrior(bridge.law).cholesky, _normed(raw, *moments)

    def law(self, t: Tensor) -> Matrix:
        """Second moments of a_t at times t (n,): k x k entries (n, *shape)."""
        (_, second), bridge, unit = self.fit_of_data, self.bridge(t), self.known().unit.double()
        size = range(self.k)
        signal = [f * unit for f in bridge.mean]
        pushed = [sum(bridge.gain[i][j] * second[0, 1 + j] for j in size) for i in size]
        ends = tuple(tuple(second[1 + i, 1 + j] for j in size) for i in size)
        spread = matmul(matmul(bridge.gain, ends), transpose(bridge.gain))
        return tuple(
            tuple(
                signal[i] * signal[j] * second[0, 0]
                + signal[i] * pushed[j] + signal[j] * pushed[i] + spread[i][j] + bridge.noise[i][j]
                for j in size
            )
            for i in size
        )  # fmt: skip

    def potential(self, t: float) -> Potential:
        """phi_t."""
        end = self.fit_of_data[0].potential()
        return end if t >= 1 else end.earlier(self.reference(t, 1.0))

    def coefficients(
        self,
        t: Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        within: Tensor | None = None,
    ) -> Coefficients:
        """As of every process, with phi_t, the rest of the linear part, and what denoising takes (`Coefficients`)."""
        t = t.to(torch.float64)
        table = super().coefficients(t, torch.float64, "cpu", within)
        raw, row, _, (var, slope, rest) = self._statistics(t)
        norm = (1 + raw.snr.square()).sqrt()
        clean = (var.sqrt() * (raw.snr + slope) / norm, rest / norm)
        law = self.law(t)
        back, target = inverse(law), self._target(t, raw, row, law)
        size = range(self.k)
        own = [raw.gain[i] + raw.out * sum(target[j] * back[j][i] for j in size) for i in size]  # of s, on a
        linear = tuple(table.gain[i] - 2 * own[i] - back[-1][i] for i in size)
        times = [self.potential(float(v)) for v in t]
        stacked = tuple(map(torch.stack, zip(*(p._replace(constant=p.constant - p.constant.max()) for p in times))))
        return table._replace(potential=stacked, linear=linear, clean=clean).map(lambda e: e.to(device, dtype))

    def _target(self, t: Tensor, raw: Channel, row: tuple[Tensor, ...], law: Matrix) -> list[Tensor]:
        """E[T a_t'] of the raw target T = (xi - snr n)/sqrt(1 + snr^2); k entries."""
        (_, second), bridge, unit = self.fit_of_data, self.bridge(t), self.known().unit.double()
        size, norm = range(self.k), (1 + raw.snr.square()).rsqrt()
        # n = row . (a - F x_0) and E[xi a'] = F unit E[xi^2] + J E[Delta xi]
        signal = [
            bridge.mean[i] * unit * second[0, 0] + sum(bridge.gain[i][j] * second[0, 1 + j] for j in size) for i in size
        ]
        noise = [sum(row[j] * (law[j][i] - bridge.mean[j] * unit * signal[i]) for j in size) for i in size]
        return [norm * (signal[i] - raw.snr * noise[i]) for i in size]

    def spread(self, t: Tensor) -> tuple[Channel, tuple[Tensor, ...]]:
        """The channel at times t, and Cholesky entries of the second moments of a_t."""
        return self.channel(t)[1], GaussianPrior(self.law(t)).cholesky

    def velocity(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """A draw of v_0 given x_0 (n, *shape) in directions, and its log-density (n,); float64."""
        coupling, _ = self.fit_of_data
        a = self.states(x.double(), torch.zeros(len(x), dtype=torch.float64), stream)[0]
        v, a = a[:, 1], torch.stack([x.double(), a[:, 1]], 1)
        normal = -0.5 * (v.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        tilt = coupling.log_z(x) - 0.5 * coupling.pushed(x).square().flatten(1).sum(1)
        return v, normal + self.potential(0.0).log(a) - tilt

    def end_kl(self, data: Tensor, draws: int = 4_000, seed: int = 0) -> float:
        """Estimate of KL(law of a_T || prior) in nats: does the fit reach the prior? About .01 is safe.

        The law of a_T is that of `draws` other points through the conditional law, which is a closed form; the estimate
        has an error of about sqrt(2 KL / draws), and is too small where few points are near.
        data: (n, *shape), n >= 2; half of them, at most `draws`, are carried to T.
        """
        coupling, _ = self.fit_of_data
        x = self.to_directions(checks.points("data", data, self.shape)).double()
        ends, known = x[: min(draws, len(x) // 2)], x[len(x) // 2 :]
        delta = coupling.ends(ends, random.generator(seed, "end")).mT
        w = torch.linalg.solve_triangular(coupling.lower, delta.mT, upper=False).mT.reshape(len(ends), -1)
        w, u = w + coupling.pushed(ends).flatten(1), coupling.pushed(known).flatten(1)
        tilt = coupling.log_z(known) - 0.5 * u.square().sum(1)
        phi = coupling.whitened().terms(w.view(len(w), *coupling.mean.shape[1:])).logsumexp(1)
        near = [(-0.5 * torch.cdist(rows, u).square() - tilt).logsumexp(1) for rows in w.split(500)]
        law = torch.cat(near) - math.log(len(known)) + phi - self.dim * coupling.lower.diagonal().log().sum()
        a = w.view(len(w), self.dim, self.k) @ coupling.lower.T
        target = self.reference_variance()
        prior = -0.5 * a.square().flatten(1).sum(1) / target - 0.5 * self.dim * self.k * math.log(target)
        return float((law - prior).mean())

    def prior_law(self) -> Prior:
        """N(0, Sigma_T) ("gaussian"), or the second moments of a_T ("moments")."""
        if self.prior == "moments":
            law = self.law(torch.ones(1, dtype=torch.float64))
            return GaussianPrior(tuple(tuple(e[0] for e in row) for row in law))
        return GaussianPrior(self._gaussian_prior())

    def _gaussian_prior(self) -> Matrix:
        one = torch.full(self.shape, self.reference_variance(), dtype=torch.float64)
        return ((one,),) if self.k == 1 else ((one, 0 * one), (0 * one, one))

    def with_prior(self, name: str, data: Tensor | None = None, components: int = 32, seed: int = 0) -> ForwardProcess:
        """The same process with another prior, "gaussian" or "moments"; ValueError for the others."""
        check_prior(name)
        return dataclasses.replace(self, prior=name)

    def prior_kl(self, mean: Tensor | float = 0.0, var: Tensor | float = 0.0) -> Tensor:
        """KL of Gaussians with the second moments of a_T and of the prior, per direction; `end_kl` sees the rest.

        The coupling's own moments count; mean and var are not used.
        """
        law = tuple(tuple(e[0] for e in row) for row in self.law(torch.ones(1, dtype=torch.float64)))
        return gaussian_kl(tuple(torch.zeros(()) for _ in law), law, self._gaussian_prior())

    def transition(self, t: float | Tensor) -> Transition:
        """Refused: a_t given x_0 is a Gaussian mixture that depends on x_0."""
        return _no_transition()


def _no_transition() -> NoReturn:
    raise ValueError(
        "transition: of a mixture process is no Gaussian; states(x, t, stream) draws from it, potential(t) is its phi_t"
    )


def check_prior(name: str) -> str:
    """The prior's name; ValueError unless a mixture process can start from it."""
    return checks.one_of("prior (of a mixture variational score)", name, ("gaussian", "moments"))


def _normed(raw: Channel, var: Tensor, slope: Tensor, rest: Tensor) -> Channel:
    """The channel with z and target of variance 1 and uncorrelated."""
    gain = tuple(g + raw.out * slope * i for g, i in zip(raw.gain, raw.inp))
    inp = tuple(i / var.sqrt() for i in raw.inp)
    return raw._replace(inp=inp, gain=gain, out=raw.out * rest, kappa=raw.kappa * rest)


def _applied(m: Matrix, a: Tensor) -> Tensor:
    """A matrix field on states (n, k, *shape)."""
    return torch.stack([sum(e * a[:, j] for j, e in enumerate(row)) for row in m], 1)  # type: ignore[arg-type]
