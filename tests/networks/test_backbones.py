"""What a backbone of images sees, and what is made of its answer, in every basis; other libraries' backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vsmd import Model, fit, forward_process, load, networks
from vsmd.bases import BASES, Basis, Coordinates, Orthogonal, basis_of
from vsmd.networks import Backbone
from vsmd.networks.unet import UNet
from vsmd.processes import ForwardProcess
from vsmd.random import generator
from vsmd.scores import Score, in_directions, preconditioned
from vsmd.training.pairs import Pairs, hybrid_pairs, loss, pairs_at

SHAPE = (2, 4, 4)
DIM = 32


class Recorder(nn.Module):
    """A backbone that answers `answer` and remembers what it was given."""

    backbone = True

    def __init__(self, answer: Tensor, levels: bool = False) -> None:
        super().__init__()
        self.answer, self.levels = answer, levels

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        self.seen = image, level, context
        return self.answer


def draws(n: int, label: str, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(n, *shape, generator=generator(0, "backbones", label), dtype=torch.float64)


def covariance() -> Tensor:
    """A full covariance (d, d) whose eigenvalues lie between .01 and 10."""
    turn = torch.linalg.qr(draws(DIM, "turn").flatten(1))[0]
    return (turn * torch.logspace(-2, 1, DIM, dtype=torch.float64)) @ turn.T


def correlated(n: int, label: str = "data") -> Tensor:
    return (draws(n, label).flatten(1) @ torch.linalg.cholesky(covariance()).T).view(n, *SHAPE) + 1


def every_basis(x: Tensor) -> list[Basis]:
    """One of each kind, knowing images x; the given matrix holds their principal axes in another order."""
    shape = tuple(x.shape[1:])
    principal = basis_of("principal", shape).fitted(x)[1]
    own = Orthogonal.of(principal.tensors["matrix"].flip(1), shape)
    return [Coordinates(shape), principal, basis_of("cosine", shape).fitted(x)[1], own]


@pytest.mark.parametrize("basis", every_basis(correlated(400)), ids=lambda b: b.name)
def test_the_backbone_sees_the_image_with_one_noise(basis: Basis) -> None:
    """y √(1 + e^{2m}) = B(snr ξ + n), white noise whatever the basis; a perfect "v" for y gives the target."""
    snr = (0.8 * draws(1, "ratio") + torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1, 1)).exp()
    xi, noise = draws(3, "xi"), draws(3, "noise")
    z, _, target, *_ = hybrid_pairs(xi, snr, snr, noise)
    mean = snr.square().mean((1, 2, 3), keepdim=True)
    w = snr / mean.sqrt()
    v = (w * xi - mean.sqrt() * noise) / (1 + mean).sqrt()
    network = Recorder(basis.back(v), levels=True)
    out = preconditioned(network, basis, z, snr.log(), None)
    image, deviations = network.seen[0].chunk(2, 1)
    torch.testing.assert_close(image * (1 + mean).sqrt(), basis.back(snr * xi + noise))
    torch.testing.assert_close(network.seen[1], 0.5 * mean.log().flatten())
    expected = w.log() if basis.name == "coordinates" else torch.zeros_like(w)
    torch.testing.assert_close(deviations, expected)
    sigma, alpha = (1 + snr.square()).rsqrt(), snr / (1 + snr.square()).sqrt()
    linear = sigma * (mean / (1 + mean)).sqrt() / w - alpha * (1 + mean).rsqrt()
    torch.testing.assert_close(out + linear * basis.into(image), target)


def test_equal_levels_leave_the_image_alone() -> None:
    z, level = draws(3, "z"), torch.tensor([-1.0, 0.5, 3.0]).double().view(3, 1, 1, 1)
    network = Recorder(draws(3, "answer"))
    out = preconditioned(network, Coordinates(SHAPE), z, level.expand_as(z), None)
    torch.testing.assert_close(network.seen[0], z)
    torch.testing.assert_close(out, network.answer)


def test_constant_pixels() -> None:
    """Levels as the process gives them where a pixel never changes; values and gradients stay finite."""
    level = draws(3, "levels").float()
    level[:, :, :2] = -27.6
    for log_snr in (level, torch.full_like(level, -27.6)):
        network = awake(UNet(SHAPE, width=8, multipliers=(1, 2), depth=1, attention=()))
        out = in_directions(network, Coordinates(SHAPE), draws(3, "z").float(), log_snr, None)
        out.square().mean().backward()
        assert bool(torch.isfinite(out).all())
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def awake(network: UNet) -> UNet:
    """The network as training would leave it: no map is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for p in network.parameters():
            if not bool(p.any()):
                nn.init.normal_(p, std=0.1)
    return network


# --- Gaussian images: a zero backbone is exact ----------------------------------------------------------------------


def known(method: str, basis: Basis, **arguments: Any) -> ForwardProcess:
    """A process that knows the exact moments of the Gaussian images, per direction of a basis."""
    process = forward_process(method, SHAPE, basis=basis, **arguments)
    axes = basis.into(torch.eye(DIM, dtype=torch.float64).view(DIM, *SHAPE)).flatten(1)  # columns are directions
    return process.with_moments(torch.ones(SHAPE), (axes.T @ covariance() @ axes).diagonal().view(SHAPE))


def exact_bases() -> list[Basis]:
    """Bases in which the images' covariance is diagonal: all in which a diagonal law can be exact."""
    axes = torch.linalg.eigh(covariance())[1]
    return [BASES["principal"](SHAPE, {"matrix": axes}), Orthogonal.of(axes.flip(1), SHAPE)]


def zero() -> Recorder:
    return Recorder(torch.zeros(()))


class Zero(nn.Module):
    backbone = True

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(image)


@pytest.mark.parametrize("basis", exact_bases(), ids=lambda b: b.name)
@pytest.mark.parametrize(("method", "mode"), [("SGM", "zero"), ("VSULD", "steered"), ("CLD", "zero")])
def test_a_zero_backbone_is_the_score_of_gaussian_images(method: str, mode: str, basis: Basis) -> None:
    process = known(method, basis, variational_score=mode, beta=4.0)
    x, cov = correlated(60), covariance()
    for t in (1e-2, 0.4, 1.0):
        kernel = process.kernel(torch.tensor([t], dtype=torch.float64))
        at = process.coefficients(torch.tensor([t], dtype=torch.float64), dtype=torch.float64).at(0)
        z = process.to_directions(x)
        noise = draws(60, "state", (process.k, *SHAPE))
        a = torch.stack([f[0] * z + 0.1 * noise[:, i] for i, f in enumerate(kernel.mean)], 1)
        # the whole law in data coordinates: F and N are functions of the covariance's eigenvectors
        turn = basis.into(torch.eye(DIM, dtype=torch.float64).view(DIM, *SHAPE)).flatten(1)

        def whole(entry: Tensor, turn: Tensor = turn) -> Tensor:
            return turn @ entry.expand(1, *SHAPE).flatten().diag() @ turn.T

        k = process.k
        f = torch.cat([torch.cat([whole(kernel.mean[i][j]) for j in range(k)], 1) for i in range(k)], 0)
        n = torch.cat([torch.cat([whole(kernel.noise[i][j]) for j in range(k)], 1) for i in range(k)], 0)
        start = torch.block_diag(cov, *[torch.eye(DIM, dtype=torch.float64)] * (k - 1))
        state = torch.cat([basis.back(a[:, i]).flatten(1) for i in range(k)], 1)
        want = -torch.linalg.solve(f @ start @ f.T + n, state.T).T[:, -DIM:]
        got = basis.back(Score(process, Zero())(a, at)).flatten(1)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


@pytest.mark.parametrize("basis", exact_bases(), ids=lambda b: b.name)
def test_samples_and_likelihood_of_gaussian_images(basis: Basis) -> None:
    model = Model(known("CLD", basis, prior="moments", beta=6.0), Zero())
    x = model.sample(20_000, "exponential", 8, seed=0).double().flatten(1)
    scale = covariance().diagonal().outer(covariance().diagonal()).sqrt()
    assert float(((torch.cov(x.T) - covariance()) / scale).abs().max()) < 6 * (2 / 20_000) ** 0.5
    points = correlated(30)
    law = torch.distributions.MultivariateNormal(torch.ones(DIM, dtype=torch.float64), covariance())
    found = model.log_prob(points.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, law.log_prob(points.flatten(1)), rtol=0, atol=0.25)


# --- a mixture of two Gaussians of images: training finds the exact denoiser ----------------------------------------

SMALL = (1, 4, 4)
MEAN = 1.2 * torch.tensor([[1.0, 1, -1, -1], [1, 1, -1, -1], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64).view(16)


def within() -> Tensor:
    """Covariance (16, 16) of either component: neighbours are alike."""
    place = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    return 0.6 * (-0.5 * torch.cdist(place, place).square() / 2).exp() + 0.05 * torch.eye(16, dtype=torch.float64)


def bimodal(n: int, stream: torch.Generator) -> Tensor:
    """½ N(-m, C) + ½ N(m, C)."""
    sign = torch.randint(2, (n, 1), generator=stream) * 2 - 1
    noise = torch.randn(n, 16, generator=stream, dtype=torch.float64)
    return (sign * MEAN + noise @ torch.linalg.cholesky(within()).T).float().view(n, *SMALL)


class Exact(nn.Module):
    """E[target | z] in directions for that mixture: z given the component is Gaussian with a full covariance."""

    def __init__(self, process: ForwardProcess) -> None:
        super().__init__()
        axes = process.basis.into(torch.eye(16, dtype=torch.float64).view(16, *SMALL)).flatten(1)
        std = process.known().std.flatten()
        centre = process.known().mean.flatten()
        self.means = torch.stack([(s * MEAN - centre) @ axes / std for s in (-1, 1)])
        self.cov = axes.T @ within() @ axes / std / std[:, None]

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        flat, snr = z.double().flatten(1), log_snr.double().exp().flatten(1).expand(len(z), -1)
        norm = (1 + snr.square()).sqrt()
        y = flat * norm  # snr xi + n
        cross = self.cov * snr[:, None]  # Cov(xi, y | component): rows xi
        law = snr[:, :, None] * self.cov * snr[:, None] + torch.eye(16, dtype=torch.float64)
        logs, means = [], []
        for mean in self.means:
            gap = y - snr * mean
            pull = torch.linalg.solve(law, gap)
            logs.append(-0.5 * (gap * pull).sum(1))  # of equal weights and determinants
            means.append(mean + torch.einsum("nij,nj->ni", cross, pull))
        share = torch.stack(logs, 1).softmax(1)
        xi = (share[:, :, None] * torch.stack(means, 1)).sum(1)
        return ((xi - snr * (y - snr * xi)) / norm).view_as(z).to(z)


def held_out(process: ForwardProcess) -> Pairs:
    stream = generator(1, "held out")
    x = bimodal(20_000, stream)
    t = torch.rand(len(x), generator=stream, dtype=torch.float64).clamp(min=1e-3)
    return pairs_at(process, x, t, stream)


@pytest.mark.parametrize("kind", ["coordinates", "principal", "cosine", "orthogonal"])
def test_training_comes_near_the_exact_denoiser_in_every_basis(kind: str) -> None:
    """Within 2 % of the least possible loss; with levels of directions passed as if they were pixels' it is not."""
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator(0, "turn"), dtype=torch.float64))[0]
    process = forward_process("CLD", SMALL, beta=4.0, basis=turn if kind == "orthogonal" else kind)
    network = UNet(SMALL, width=16, multipliers=(1, 2), depth=1, attention=(2,))
    model = fit(
        process, bimodal, units="raw", network=network, steps=500, batch_size=256, learning_rate=4e-3, ema=0.99, seed=0
    )
    pairs = held_out(model.process)
    with torch.no_grad():
        least = float(loss(Exact(model.process), model.process.basis, pairs))
        ours = float(loss(model.network, model.process.basis, pairs))
        nothing = float(loss(Zero(), model.process.basis, pairs))
    print(kind, ours / least, nothing / least)
    assert nothing > 1.03 * least
    assert 0.99 < ours / least < 1.02


# --- backbones of others --------------------------------------------------------------------------------------------


def test_a_backbone_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra `diffusers` is not installed")
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    kinds = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    unet = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **sizes, **kinds)
    network = Backbone(unet, lambda unet, image, level, context: unet(image, 100 * level).sample)
    data = torch.randn(64, 1, 8, 8, generator=generator(0, "images"))
    model = fit(forward_process("CLD", (1, 8, 8), basis="cosine"), data, network=network, steps=3, batch_size=8)
    x = model.sample(2, "exponential", 3, seed=0)
    assert x.shape == (2, 1, 8, 8)
    assert bool(torch.isfinite(x).all())


class Own(nn.Module):
    """A network of a user's own, saved by its settings."""

    name = "own"
    backbone = True

    def __init__(self, shape: tuple[int, ...], width: int = 4) -> None:
        super().__init__()
        self.settings = {"shape": list(shape), "width": width}
        self.first, self.last = nn.Conv2d(shape[0], width, 3, padding=1), nn.Conv2d(width, shape[0], 3, padding=1)

    def forward(self, image: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        return self.last((self.first(image) + level.view(-1, 1, 1, 1)).relu())


@pytest.mark.parametrize("kind", ["coordinates", "principal", "cosine"])
def test_a_registered_backbone_is_saved_and_loaded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "own", Own)
    data = correlated(40).float()
    model = fit(forward_process("VSCLD", SHAPE, basis=kind), data, network=Own(SHAPE), steps=4, batch_size=8)
    again = load(model.save(tmp_path / "model.safetensors"))
    assert again.process.basis.name == kind
    assert torch.equal(again.sample(3, "heun", 3, seed=1), model.sample(3, "heun", 3, seed=1))
