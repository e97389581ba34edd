"""Beyond Gaussian data, still without training: what a linear A captures, and what the variational gap costs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from repro.grid.runs import Result
from repro.studies.convergence import Row, backward_laws, gaussian_process, kl, power, rates, solver_law, target_law, w2
from repro.studies.derivations import Zero, as_array
from repro.studies.mean_fields import differences, forward_gap, mean_field, roots, steered
from vsmd.family import forward_process
from vsmd.metrics.distances import sliced_wasserstein2
from vsmd.model import Model
from vsmd.processes import ForwardProcess
from vsmd.random import generator
from vsmd.samplers import as_solver, make_solver, time_grid
from vsmd.scores import Score


class MixtureNetwork(nn.Module):
    r"""The exact network of a centred Gaussian mixture, diagonal per component: E[target | z], no training.

    Standardised, component j has mean mu and variance C per direction; then z | j ~ N(snr mu/n, (snr^2 C + 1)/n^2) with
    n^2 = 1 + snr^2, E[target | z, j] = (snr (C - 1) z + n mu)/(snr^2 C + 1), and the components' posterior weights mix.
    """

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.weights, self.means, self.variances = (v.to(torch.float64) for v in (weights, means, variances))
        self.var = (self.weights[:, None] * (self.variances + self.means.square())).sum(0)  # per direction

    def sample(self, n: int, stream: torch.Generator) -> Tensor:
        """n points (n, d) of the mixture itself, float32."""
        j = torch.multinomial(self.weights, n, replacement=True, generator=stream)
        noise = torch.randn(n, self.means.shape[1], generator=stream, dtype=torch.float64)
        return (self.means[j] + self.variances[j].sqrt() * noise).float()

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """E[target | z] for z (n, d), log_snr (n or 1, d)."""
        snr = log_snr.double().exp()[:, None]
        mu, c = self.means / self.var.sqrt(), self.variances / self.var
        norm, wide, w = (1 + snr.square()).sqrt(), snr.square() * c + 1, z.double()[:, None]
        log_weight = self.weights.log() - 0.5 * ((norm * w - snr * mu).square() / wide + wide.log()).sum(-1)
        share = log_weight.softmax(1)[..., None]
        return (share * (snr * (c - 1) * w + norm * mu) / wide).sum(1).to(z.dtype)


def two_bumps(separation: float, std: float) -> MixtureNetwork:
    """½ N(-m, w^2) + ½ N(m, w^2) with m/w = separation and variance std^2: 0 is Gaussian, 2 has two humps."""
    width = std / (1 + separation**2) ** 0.5
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) * separation * width
    return MixtureNetwork(torch.full((2,), 0.5), means, torch.full((2, 1), width**2))


def stretched_ring(stretch: float = 8.0) -> MixtureNetwork:
    """Eight Gaussians of width .15 on the unit circle, the second axis stretched: an exact, non-Gaussian spiral-8Y."""
    angle = torch.arange(8) * np.pi / 4
    scale = torch.tensor([1.0, stretch], dtype=torch.float64)
    means = torch.stack([angle.cos(), angle.sin()], 1) * scale
    return MixtureNetwork(torch.full((8,), 1 / 8), means, (0.15 * scale).square().expand(8, 2))


def process_of(a_mode: str, var: Tensor, beta: float) -> ForwardProcess:
    """ "zero" (CLD), "adapted" (VSCLD at the fixed point of (13)) or "steered", for data of variance var (d,)."""
    if a_mode == "adapted":
        std = var.sqrt().tolist()
        best = [roots(lambda s, e=e: mean_field("duality", "VSCLD", e, beta, s))[0] for e in std]  # type: ignore[misc]
        return gaussian_process("VSCLD", std, beta, stiffness=best)
    method, score = ("CLD", None) if a_mode == "zero" else ("VSCLD", "steered")
    process = forward_process(method, tuple(var.shape), beta=beta, variational_score=score, prior="gaussian")
    return process.with_moments(torch.zeros(var.shape), var)


def policies(a_modes: list[str], betas: list[float], separations: list[float], std: float, steps: list[int]) -> Result:
    """`linear_share` for pairs of a_modes and betas and all separations, and `gap` at the first beta, as one run."""
    rows = gap(std, betas[0], steps)
    for a_mode, beta in zip(a_modes, betas):
        for separation in separations:
            rows += linear_share(a_mode, beta, separation, std)
    return Result({"rates": rows})


def linear_share(a_mode: str, beta: float, separation: float, std: float, nodes: int = 200) -> list[Row]:
    """How much of the true backward policy z = s - A a (over g) a linear policy can be, for two bumps.

    Its best linear part is (gain - A) a, uncorrelated with the rest, out E[target | z]: shares are exact (Gauss–Hermite
    over each component). rates: linear_share (x = t, y: share of E z^2); x = separation: linear_share_total (both
    integrated over t, weight beta gamma) and linear_rest (half the rest's integral: KL in nats of the reverse process
    from the one with the Gaussian score).
    """
    mixture = two_bumps(separation, std)
    process = process_of(a_mode, mixture.var, beta)
    x, w = np.polynomial.legendre.leggauss(nodes)
    t = torch.from_numpy(((x + 1) / 2) ** 2)
    at = process.coefficients(t, dtype=torch.float64)
    half, unit = at.beta / 2, 2 * process.gamma
    a = ((1 - at.row[0] / half) / unit, (1 - at.row[1] / half / process.gamma) / 2)
    policy = np.stack([(g - e).numpy() for g, e in zip(at.gain, a)], -1)
    law = as_array(process.covariance(process.kernel(t), mixture.var))
    linear = np.einsum("ndi,ndij,ndj->n", policy, law, policy)
    e, we = np.polynomial.hermite_e.hermegauss(128)
    snr = at.log_snr.exp()
    norm = (1 + snr.square()).sqrt()
    mu, c = mixture.means[:, 0] / std, mixture.variances[:, 0] / std**2
    z = (snr * mu + (snr.square() * c + 1).sqrt() * torch.from_numpy(e)[:, None, None]) / norm  # (nodes, times, bumps)
    flat = mixture(z.reshape(-1, 1), at.log_snr.expand(len(e), -1, -1).expand_as(z).reshape(-1, 1)).view(z.shape)
    square = (torch.from_numpy(we / we.sum())[:, None, None] * flat.square()).sum(0).mean(1)
    rest = (at.out[:, 0].square() * square).numpy()
    weight = w / 2 * (x + 1) * (at.beta[:, 0] * process.gamma).numpy()  # dt = 2 u du
    name = f"{a_mode}, beta {beta:g}, std {std:g}"
    share = linear / (linear + rest)
    total = float(weight @ linear / (weight @ (linear + rest)))
    rows = rates("linear_share", f"{name}, separation {separation:g}", t[::5].numpy(), share[::5])
    rows += rates("linear_share_total", name, [separation], [total])
    return rows + rates("linear_rest", name, [separation], [float(weight @ rest) / 2])


def gap(std: float, beta: float, steps: list[int], pieces: int = 200) -> list[Row]:
    """The variational gap KL(L || L*) against generation, Gaussian data: A between 0, or its fixed point, and steered.

    A_t = (1 - w) A + w A*_t, piecewise constant; generation starts at the fixed prior N(0, Sigma_T). rates, x = gap:
    gap_end (y = KL(S_1 || Sigma_T), at most the gap), gap_w2 (W2 of x, exact reverse SDE) and gap_w2_heun_… (by Heun
    with so many evaluations); fitted: exponents over the half that is nearer to the steered A.
    """
    middle = (torch.arange(pieces, dtype=torch.float64) + 0.5) / pieces
    rows: list[Row] = []
    for a_mode in ("zero", "adapted"):
        base = process_of(a_mode, torch.tensor([std**2], dtype=torch.float64), beta)
        s, c = steered(base).rates(middle)
        measured = []
        for w in (0.0, 0.25, 0.5, 0.75, 0.875, 0.9375, 0.96875):
            stiffness, friction = (e + w * (best - e) for e, best in ((base.stiffness, s), (base.friction, c)))
            process = base.with_variational_score((1 - stiffness) / (2 * base.gamma), (1 - friction) / 2)
            d = np.stack([(stiffness - s).numpy() / (2 * base.gamma), (friction - c).numpy() / 2], -1)
            end, start = as_array(process.terminal(process.known().var)[1]), target_law(process)
            laws, generated = backward_laws(process, np.linspace(1, 0, pieces + 1), start)
            values = [float(kl(end - start, start)[0]), float(w2(generated[-1], laws[-1])[0])]
            for n in steps:
                law = solver_law(make_solver("heun", Score(process, Zero()), time_grid(n, 1e-3, 2.0)), start)
                values.append(float(w2(law, laws[-1])[0]))
            measured.append((forward_gap(process, middle, d), *values))
        gaps, *others = np.array(measured).T
        quantities = ["gap_end", "gap_w2", *(f"gap_w2_heun_{2 * n}" for n in steps)]
        for quantity, y in zip(quantities, others):
            expected = {"gap_end": 1.0, "gap_w2": 0.5}.get(quantity)
            setting = f"{a_mode} to steered, std {std:g}, beta {beta:g}"
            rows += rates(quantity, setting, gaps, y, power(gaps[3:], y[3:]), expected)
    return rows


def quality(
    a_modes: list[str], betas: list[float], solver: str, evaluations: list[int], samples: int, seed: int
) -> Result:
    """Samples of the stretched ring with its exact score: rates, ring_w2 (x = evaluations, y = sliced W2, whitened).

    fitted: the process's gap KL(L || L*) on the data's second moments, in nats. a_mode "real": another draw instead.
    """
    mixture, rows = stretched_ring(), list[Row]()
    scale = mixture.var.sqrt().float()
    real = mixture.sample(samples, generator(seed, "ring")) / scale
    for a_mode, beta in zip(a_modes, betas):
        if a_mode == "real":
            value = sliced_wasserstein2(mixture.sample(samples, generator(seed, "ring again")) / scale, real, 64)
            rows += rates("ring_w2", "real", evaluations, [value] * len(evaluations), None, None, seed)
            continue
        process, values = process_of(a_mode, mixture.var, beta), []
        for n in evaluations:
            x = Model(process, mixture).sample(
                samples, solver, max(1, n // as_solver(solver).evaluations), seed, denoise=False, checked=False
            )
            values.append(sliced_wasserstein2(x / scale, real, 64))
        ring = rates("ring_w2", f"{a_mode}, beta {beta:g}, {solver}", evaluations, values, None, None, seed)
        rows += [row | {"fitted": gap_of(process)} for row in ring]
    return Result({"rates": rows})


def gap_of(process: ForwardProcess) -> float:
    """KL(L || L*) in nats of a constant A against the steered one, for the process's second moments."""
    if process.steered:
        return 0.0
    middle = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    s, c = steered(process).rates(middle)
    return forward_gap(process, middle, differences(process, s, c))
