r"""Forward processes: beta and A as data, and everything that follows from them in closed form.

A process acts on the centred data in *directions*: coordinates, or the columns of an orthonormal `basis` when A is a
full symmetric matrix. A state is a tensor (n, k, *shape), k = 1 (overdamped) or 2 (x and v), in those directions.
Processes are immutable: before data A is zero, and `with_moments`, `with_score` return new ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.kernels import Kernel, Matrix
from vsmd.priors import GaussianPrior, gaussian_kl
from vsmd.schedules import BetaSchedule


class Method(NamedTuple):
    """One of the six methods: order of the dynamics, whether A is adapted, default damping ratio squared R."""

    k: int
    variational_score: str
    damping: float | None


METHODS = {
    "SGM": Method(1, "zero", None),  # overdamped baseline (VP)
    "VSDM": Method(1, "adaptive", None),  # its variational form, the predecessor
    "CLD": Method(2, "zero", 1.0),  # momentum baseline, critical damping
    "ULD": Method(2, "zero", 0.7),  # momentum baseline, underdamped: its stationary law is N(0, I/sqrt R)
    "VSCLD": Method(2, "adaptive", 1.0),  # VSMD, critical
    "VSULD": Method(2, "adaptive", 0.7),  # VSMD, underdamped
}


class Moments(NamedTuple):
    """First two moments of the data: mean (*shape) in data coordinates, variance (*shape) per direction."""

    mean: Tensor
    var: Tensor


class Transition(NamedTuple):
    """Law of a_t given x_0: mean F (..., k, k) applied to (x_0, 0), covariance Sigma_t (..., k, k); float64."""

    mean: Tensor
    cov: Tensor


class Coefficients(NamedTuple):
    """What solvers and scores need at each of n times, tensors (n, 1 or *shape), in the dtype asked for.

    Reverse flow in r = T - t: dx/dr = rate_x v, dv/dr = row . a + noise s_v (probability flow: half the noise);
    overdamped: dx/dr = row x + noise s. The score is s = gain . a + out net(inp . a, log_snr).
    """

    beta: Tensor
    row: tuple[Tensor, ...]
    noise: Tensor
    inp: tuple[Tensor, ...]
    gain: tuple[Tensor, ...]
    out: Tensor
    log_snr: Tensor
    kappa: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Coefficients:
        """Apply `f` to every tensor."""
        values = (tuple(map(f, v)) if isinstance(v, tuple) else f(v) for v in self)
        return Coefficients(*values)  # type: ignore[arg-type]

    def at(self, index: int | slice | Tensor) -> Coefficients:
        """Coefficients at one time (index) or several."""
        return self.map(lambda e: e[index])


@dataclass(frozen=True, eq=False)
class ForwardProcess:
    r"""A linear forward process of the family, paper (5) and (15), over t in [0, 1].

    momentum:    dx = (beta/2) v dt,  dv = -(beta/2)(s x + gamma c v) dt + sqrt(beta gamma) dw,
                 s = 1 - 2 gamma A_x (stiffness), c = 1 - 2 A_v (friction), c = (2/gamma) sqrt(R s) by (14);
    overdamped:  dx = -(beta/2) (1 - 2 A) x dt + sqrt(beta) dw.

    `a_x` (and `a_v`) hold A per piece of a uniform grid on [0, 1] and direction: (pieces, *shape), float64.
    Build one with `forward_process`, which checks the arguments.
    """

    method: str
    shape: tuple[int, ...]
    schedule: BetaSchedule
    gamma: float
    damping: float | None
    variational_score: str
    prior: str
    matrix: str
    score_matching: str
    a_x: Tensor
    a_v: Tensor | None = None
    basis: Tensor | None = None
    moments: Moments | None = None

    # --- what it is -------------------------------------------------------------------------------------------------
    @property
    def k(self) -> int:
        """Order of the dynamics: 1 overdamped, 2 with velocity."""
        return METHODS[self.method].k

    @property
    def dim(self) -> int:
        """Number of data coordinates d."""
        return math.prod(self.shape)

    @property
    def pieces(self) -> int:
        """Number of pieces of the piecewise-constant A_t."""
        return self.a_x.shape[0]

    @property
    def stiffness(self) -> Tensor:
        """s = 1 - 2 gamma A_x, or D = 1 - 2 A in the overdamped case; (pieces, *shape)."""
        return 1 - 2 * (self.gamma if self.k == 2 else 1.0) * self.a_x

    @property
    def friction(self) -> Tensor:
        """c = 1 - 2 A_v, (pieces, *shape); only processes with velocity have one."""
        if self.a_v is None:
            raise ValueError(f"friction: {self.method} has no velocity; CLD, ULD, VSCLD and VSULD have")
        return 1 - 2 * self.a_v

    @property
    def settings(self) -> dict[str, Any]:
        """The plain values that define the process, apart from A, basis and moments (JSON)."""
        names = ("method", "gamma", "damping", "variational_score", "prior", "matrix", "score_matching")
        schedule = dataclasses.asdict(self.schedule)
        return {"shape": list(self.shape), "schedule": schedule, **{n: getattr(self, n) for n in names}}

    # --- with data --------------------------------------------------------------------------------------------------
    def with_moments(self, mean: Tensor, var: Tensor, basis: Tensor | None = None) -> ForwardProcess:
        """The same process knowing the data's mean and per-direction variance (and principal axes, if full)."""
        moments = Moments(mean.to(torch.float64), var.to(torch.float64))
        return dataclasses.replace(self, moments=moments, basis=self.basis if basis is None else basis)

    def with_score(self, a_x: Tensor, a_v: Tensor | None) -> ForwardProcess:
        """The same process with another variational score A, (pieces, *shape) per component."""
        return dataclasses.replace(self, a_x=a_x.to(torch.float64), a_v=None if a_v is None else a_v.to(torch.float64))

    def with_stiffness(self, stiffness: Tensor) -> ForwardProcess:
        """The same process with stiffness s (pieces, *shape) > 0 and the friction that (14) ties to it."""
        return self.with_score(*score_of_stiffness(stiffness, self.k, self.gamma, self.damping))

    def known(self) -> Moments:
        """The data's moments; ValueError before `fit` or `with_moments`."""
        if self.moments is None:
            raise ValueError("moments=None: this process has not seen data; fit it or call with_moments(mean, var)")
        return self.moments

    def to_directions(self, x: Tensor) -> Tensor:
        """Centre x (n, *shape) and rotate it into the process's directions."""
        return self.rotate(x - self.known().mean.to(x))

    def from_directions(self, z: Tensor) -> Tensor:
        """Inverse of `to_directions`."""
        return self.rotate(z, back=True) + self.known().mean.to(z)

    def rotate(self, x: Tensor, back: bool = False) -> Tensor:
        """Rotate (n, *shape) into the basis of A (or back); the identity for a diagonal A."""
        if self.basis is None:
            return x
        q = self.basis.to(x)
        return (x.flatten(1) @ (q.T if back else q)).view_as(x)

    # --- kernels ----------------------------------------------------------------------------------------------------
    def _step(self, tau: Tensor, piece: Tensor) -> Kernel:
        if self.k == 1:
            return kernels.overdamped(tau, self.stiffness[piece])
        if self.pieces == 1:
            return self._momentum(tau)
        return kernels.momentum(tau, self.stiffness[piece], self.friction[piece], self.gamma)

    @cached_property
    def _momentum(self) -> kernels.Momentum:
        return kernels.Momentum(self.stiffness, self.friction, self.gamma)

    def kernel(self, t: Tensor) -> Kernel:
        """Kernel a_0 -> a_t at times t (n,), entries (n, *shape): exact steps of A's pieces composed."""
        t = t.to(torch.float64)
        clock = self.schedule.clock(t).view(-1, *[1] * len(self.shape))
        if self.pieces == 1:
            return self._step(clock, torch.zeros(1, dtype=torch.long))
        knots = torch.linspace(0, 1, self.pieces + 1, dtype=torch.float64)
        starts = self.schedule.clock(knots).view(-1, *[1] * len(self.shape))
        eye, zero = torch.eye(self.k, dtype=torch.float64), torch.zeros(self.shape, dtype=torch.float64)
        total = Kernel(
            tuple(tuple(zero + eye[i, j] for j in range(self.k)) for i in range(self.k)),
            tuple(tuple(zero for _ in range(self.k)) for _ in range(self.k)),
        )
        every = self._step(starts[1:] - starts[:-1], torch.arange(self.pieces))
        prefix = [total]
        for j in range(self.pieces - 1):
            prefix.append(total := kernels.compose(total, every.map(lambda e, j=j: e[j])))  # type: ignore[misc]
        piece = (t * self.pieces).long().clamp(max=self.pieces - 1)
        before = Kernel(*(
            tuple(tuple(torch.stack([getattr(p, m)[i][j] for p in prefix])[piece] for j in range(self.k))
                  for i in range(self.k)) for m in ("mean", "noise")
        ))  # fmt: skip
        rest = clock - starts[piece]
        moved = kernels.compose(before, self._step(rest.clamp(min=torch.finfo(torch.float64).tiny), piece))
        return moved

    def transition(self, t: float | Tensor) -> Transition:
        """Law of a_t given x_0: F(t) and Sigma_t, (n, *shape, k, k) float64 (no n for a number t in (0, 1]).

        Hybrid score matching has v_0 ~ N(0, 1) marginalised, Sigma_t = F diag(0, 1) F' + N; plain has Sigma_t = N.
        Raises ValueError unless every t is in (0, 1].
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.numel() == 0 or not bool(((times > 0) & (times <= 1)).all()):
            raise ValueError(f"t={t!r}: times must be in (0, 1]")
        kernel = self.kernel(times.reshape(-1))
        cov = self.covariance(kernel, torch.zeros(()), 1.0 if self.score_matching == "hybrid" else 0.0)
        parts = [torch.stack([torch.stack(row, -1) for row in m], -2) for m in (kernel.mean, cov)]
        return Transition(*(p[0] if times.ndim == 0 else p for p in parts))

    def covariance(self, kernel: Kernel, var: Tensor, v0: float = 1.0) -> Matrix:
        """F diag(var, v0) F' + N entry by entry: S_t for data of variance `var`, Sigma_{t|0} for var = 0."""
        start = (torch.as_tensor(var, dtype=torch.float64), torch.tensor(v0, dtype=torch.float64))[: self.k]
        f, n = kernel.mean, kernel.noise
        return tuple(
            tuple(sum((f[i][m] * start[m] * f[j][m] for m in range(self.k)), n[i][j]) for j in range(self.k))
            for i in range(self.k)
        )

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
        kernel = self.kernel(t)
        ch = kernels.channel(kernel, kernels.lower_cholesky(kernel), self.known().var.sqrt())
        beta = self.schedule.beta(t).view(-1, *[1] * len(self.shape))
        piece = ((t if within is None else within) * self.pieces).long().clamp(0, self.pieces - 1)
        s = self.stiffness[piece]
        row = (beta / 2 * s,) if self.k == 1 else (beta / 2 * s, beta / 2 * self.gamma * self.friction[piece])
        noise = beta * (self.gamma if self.k == 2 else 1.0)
        log_snr = ch.snr.clamp(min=1e-12).log()
        values = Coefficients(beta, row, noise, ch.inp, ch.gain, ch.out, log_snr, ch.kappa)
        return values.map(lambda e: e.to(device, dtype))

    def snr(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal-to-noise amplitude and kappa of the channel at times t: all that score training needs; float64."""
        kernel = self.kernel(t)
        ch = kernels.channel(kernel, kernels.lower_cholesky(kernel), self.known().var.sqrt())
        return ch.snr, ch.kappa

    # --- prior ------------------------------------------------------------------------------------------------------
    def reference_variance(self) -> float:
        """Per-component variance of the reference's stationary law (A_x = 0): 1, or gamma/(2 sqrt R) with velocity."""
        return 1.0 if self.damping is None else self.gamma / (2 * math.sqrt(self.damping))

    def terminal(self, var: Tensor | float) -> tuple[Kernel, Matrix]:
        """The kernel to t = 1 and the covariance S_1 there for data of variance `var` (0: Sigma_{1|0})."""
        kernel = self.kernel(torch.ones(1)).map(lambda e: e[0])
        return kernel, self.covariance(kernel, torch.as_tensor(var, dtype=torch.float64))

    def prior_law(self) -> GaussianPrior:
        """The law that generation starts from: N(0, Sigma_{1|0}) (`gaussian`) or N(0, S_1) (`moments`)."""
        return GaussianPrior(self.terminal(self.known().var if self.prior == "moments" else 0.0)[1])

    def prior_kl(self, mean: Tensor | float, var: Tensor | float) -> Tensor:
        """KL(N(m_1, S_1) || N(0, Sigma_{1|0})) per direction in nats, jointly in (x, v), Var v_0 = 1.

        mean (what is left after centring: usually 0) and var of the data per direction, broadcast to `shape`. It tells
        before training whether beta suffices: well below .1 is safe, above 1 the stretched axis is not covered.
        """
        mean, var = (torch.as_tensor(v, dtype=torch.float64).expand(self.shape) for v in (mean, var))
        if not bool((var >= 0).all() and torch.isfinite(var).all() and torch.isfinite(mean).all()):
            raise ValueError(f"var={var.tolist()}: mean must be finite and var finite and >= 0")
        kernel, law = self.terminal(var)
        return gaussian_kl(tuple(row[0] * mean for row in kernel.mean), law, self.terminal(0.0)[1])


def score_of_stiffness(s: Tensor, k: int, gamma: float, damping: float | None) -> tuple[Tensor, Tensor | None]:
    """A from the stiffness: A_x = (1 - s)/(2 gamma), A_v = (1 - c)/2 with c = (2/gamma) sqrt(R s), paper (14)."""
    s = s.to(torch.float64)
    if k == 1:
        return (1 - s) / 2, None
    assert damping is not None
    return (1 - s) / (2 * gamma), (1 - (2 / gamma) * (damping * s).sqrt()) / 2
