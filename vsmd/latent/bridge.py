r"""The Schrödinger bridge on codes (arXiv 2404.13309), as a member of the family.

With q_s = law(code) * N(0, s² I) its Föllmer-type SDE on [0, 1] is

    dX = σ² ∇log q_{σ√(1-t)}(X) dt + σ dB,   X_0 ~ q_σ,   X_t ~ q_{σ√(1-t)},   stopped at some t < 1.

That is the time reversal of a Brownian motion dY = σ dB that starts from the codes: of the overdamped process with
D = 1 - 2A = 0, A = 1/2. So `schrodinger_bridge` *is* a `ForwardProcess`: training, Gaussian preconditioning (codes
that are Gaussian are exact, σ and codes' covariance whatever they are), solvers and files are those of all methods.
Its clock differs: time runs so that s grows about linearly, because in the paper's clock, s² linear, hardly any
training time or solver step would fall on the small s that detail is made of. The marginals q_s are the same.

The paper's start is the smoothed law itself, drawn as codes + σ noise: the `empirical` prior, which keeps the
training codes. With the exact drift of the empirical law the bridge would return those very codes; what makes it
generative is that the learned drift is smoother than that, and the early stop. A start that remembers no code is
one of the other priors, "moments" N(m, C + σ² I) or "mixture"; `vsmd.metrics.memorisation` tells them apart.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import torch
from torch import Tensor

from vsmd import checks, messages, random
from vsmd.family import forward_process
from vsmd.model import Model
from vsmd.processes import ForwardProcess
from vsmd.schedules import BetaSchedule

SIGMA = 2.0  # in units of the codes' root mean square deviation
STOP = 0.999  # in the paper's clock
SLOPE = 1e-2  # beta at t = 0 over sigma^2: s^2 = sigma^2 (SLOPE t + (1 - SLOPE) t^2)
FULL_UP_TO = 512  # numbers in a code; above, its directions are the coordinates
WITNESSES, CODES = 100, 2_000  # of the log-concavity check
VIOLATED = 0.05  # share of the witnesses
EARLIEST, LATEST = 1e-3, 0.5  # t at which sampling may end: from where training begins, to what grids allow


def directions(shape: tuple[int, ...]) -> str:
    """The basis for codes: principal axes up to 512 numbers, since an autoencoder's own axes mean nothing."""
    return "principal" if math.prod(shape) <= FULL_UP_TO else "coordinates"


def schrodinger_bridge(shape: tuple[int, ...], *, sigma: float = SIGMA, prior: str = "empirical") -> ForwardProcess:
    """The forward process whose reversal is the bridge: Brownian motion from codes of `shape` to noise of std sigma.

    sigma: in the codes' units (`latent.fit` makes their root mean square deviation 1). prior: the start; "empirical" is
    the paper's. Raises ValueError for sigma outside .01 to 100.
    """
    variance = checks.positive("sigma", sigma, 100.0) ** 2
    levels = BetaSchedule(SLOPE * variance, (2 - SLOPE) * variance)
    return forward_process("LSBDM", shape, beta=levels, basis=directions(shape), prior=prior)


def sigma_of(process: ForwardProcess) -> float:
    """sigma of a bridge: the noise's standard deviation at the start."""
    return math.sqrt(2 * float(process.schedule.clock(torch.ones(()))))


def paper_time(process: ForwardProcess, t: Tensor) -> Tensor:
    """Time 1 - s²/sigma² of the paper's SDE at times t of the process (which run backwards)."""
    return 1 - 2 * process.schedule.clock(t) / sigma_of(process) ** 2


def process_time(stop: float) -> float:
    """t at which s² = sigma² (1 - stop): SLOPE t + (1 - SLOPE) t² = 1 - stop."""
    rest = 1 - stop
    return 2 * rest / (SLOPE + math.sqrt(SLOPE**2 + 4 * (1 - SLOPE) * rest))


def last_time(process: ForwardProcess, stop: float) -> float:
    """t of the process at which generation ends that stops at time `stop` of the paper's clock, in (0, 1).

    Raises ValueError for a process that has none, outside (0, 1), for less than .7475, where solvers' grids must not
    end, and for more than .999988, the smallest noise that training has seen.
    """
    if not process.row.early_stop:
        raise ValueError(f"stop={messages.told(stop)}: {process.method} has no early-stopping time; LSBDM has")
    if isinstance(stop, bool) or not isinstance(stop, int | float) or not 0 < stop < 1:
        raise ValueError(f"stop={messages.told(stop)}: the early-stopping time must be in (0, 1)")
    t = process_time(stop)
    if not EARLIEST <= t <= LATEST:
        ends = paper_time(process, torch.tensor([LATEST, EARLIEST], dtype=torch.float64)).tolist()
        raise ValueError(f"stop={stop}: must be between {ends[0]:.4f} and {ends[1]:.6f}, what grids and training cover")
    return t


def stopped(model: Model, stop: float) -> Model:
    """The bridge's model with early stopping at time `stop` of the paper's clock; ValueError as of `last_time`."""
    return dataclasses.replace(model, t_min=last_time(model.process, stop))


def drift(model: Model, x: Tensor, t: float) -> Tensor:
    """The learned drift σ² ∇log q_{σ√(1-t)} at codes x (n, *shape) and time t in (0, 1) of the paper's clock."""
    process = model.process
    now = torch.tensor([process_time(checks.in_range("t", t, 0.0, 1.0))], dtype=torch.float64)
    at = process.coefficients(now.clamp(min=EARLIEST), device=model.score.device).at(0)
    with torch.no_grad():
        score = model.score(process.to_directions(x.float())[:, None].to(model.score.device), at)
    return sigma_of(process) ** 2 * process.basis.back(score.cpu())


def warn_outside_theory(sigma: float, stop: float, codes: Tensor, seed: int = 0) -> None:
    """Warn, in one line each, where sigma is outside the range in which the bridge's theory says something.

    Too small: q_σ must be log-concave (for the start to be drawn by Langevin steps, and the drift to contract there),
    that is Cov(code | X_0 = x) <= σ² I for all x; tested for the empirical law, at draws of it and between codes.
    Too large: the noise that the early stop leaves, σ√(1 - stop), must be small beside the codes.
    """
    z = codes.flatten(1).double()
    size = float((z - z.mean(0)).square().mean().sqrt())
    left = sigma * math.sqrt(1 - stop)
    if left > 0.5 * size:
        warnings.warn(
            f"sigma={sigma:g}: too large for stop={stop:g}: early stopping leaves noise of std {left:.3g} on codes of "
            f"size {size:.3g}; the theory needs it to vanish",
            stacklevel=3,
        )
    stream = random.generator(seed, "log-concavity")
    z = z[torch.randperm(len(z), generator=stream)[:CODES]]
    first, second = torch.randint(len(z), (2, WITNESSES), generator=stream)
    drawn = z[first] + sigma * torch.randn(WITNESSES, z.shape[1], generator=stream, dtype=torch.float64)
    x = torch.cat([drawn, (z[first] + z[second]) / 2])
    weight = (-0.5 * torch.cdist(x, z).square() / sigma**2).softmax(1)
    most = []
    for w in weight:
        off = (z - w @ z) * w.sqrt()[:, None]
        most.append(float(torch.linalg.matrix_norm(off, 2)) ** 2 / sigma**2)
    ratio = torch.tensor(most)
    if float((ratio > 1).double().mean()) > VIOLATED:
        warnings.warn(
            f"sigma={sigma:g}: too small: the smoothed law of the codes is not log-concave (Cov(code | X_0) reaches "
            f"{float(ratio.max()):.3g} sigma², must be at most 1), so the theory's conditions at the start fail",
            stacklevel=3,
        )
