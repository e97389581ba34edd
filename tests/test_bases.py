"""vsmd.bases: turns and their inverses, moments of streams against numpy, axes that diagonalise, refusals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn
from torch import Tensor

from vsmd import forward_process
from vsmd.bases import BASES, Basis, Coordinates, Cosine, Orthogonal, Principal, basis_of, cosines


def data(n: int, d: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=stream, dtype=torch.float64)
    return torch.randn(n, d, generator=stream, dtype=torch.float64) @ mix + 5


def orthogonal(d: int) -> Tensor:
    return torch.linalg.qr(data(d, d))[0]


def fitted(kind: str, shape: tuple[int, ...], x: Tensor) -> Basis:
    """A basis of every kind, knowing data x."""
    basis = Orthogonal.of(orthogonal(math.prod(shape)), shape) if kind == "orthogonal" else basis_of(kind, shape)
    return basis.fitted(x)[1]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.integers(1, 4), st.floats(-1e6, 1e6))
def test_a_stream_is_the_whole(sizes: list[int], d: int, offset: float) -> None:
    x = data(sum(sizes), d) + offset
    moments, basis = Coordinates((d,)).fitted(iter(x.split(sizes)))
    assert basis.name == "coordinates"
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(moments.var, x.numpy().var(0), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("kind", list(BASES))
@pytest.mark.parametrize("parts", [1, 7])
def test_variances_are_those_of_the_directions(kind: str, parts: int) -> None:
    """Moments of a stream against the turned data themselves; the turn keeps lengths, and comes back."""
    x = data(700, 24).view(700, 2, 3, 4)
    start = Orthogonal.of(orthogonal(24), (2, 3, 4)) if kind == "orthogonal" else basis_of(kind, (2, 3, 4))
    moments, basis = start.fitted(iter(x.chunk(parts)))
    torch.testing.assert_close(moments.mean, x.mean(0))
    centred = x - x.mean(0)
    z = basis.into(centred)
    assert z.shape == x.shape
    torch.testing.assert_close(moments.var, z.var(0, correction=0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(basis.back(z), centred, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(z.flatten(1).norm(dim=1), centred.flatten(1).norm(dim=1), rtol=1e-12, atol=1e-12)
    again, same = basis.fitted(x)  # whatever was fitted is fitted anew, or kept where it was given
    torch.testing.assert_close(again.var, moments.var, rtol=1e-9, atol=1e-9)
    assert same.tensors.keys() == basis.tensors.keys()


def test_principal_axes_diagonalise() -> None:
    x = data(700, 5)
    moments, basis = Principal((5,)).fitted(x)
    turned = basis.into(x - x.mean(0))
    np.testing.assert_allclose(np.cov(turned.numpy().T, bias=True), np.diag(moments.var), rtol=1e-9, atol=1e-9)
    line = torch.linspace(0, 1, 20)[:, None].expand(20, 3)
    assert bool((Principal((3,)).fitted(line)[0].var >= 0).all())


def test_cosines_against_scipy() -> None:
    """Rows and columns by SciPy's orthonormal DCT-II; channels along the axes of their covariance."""
    x = data(300, 3 * 8 * 5).view(300, 3, 8, 5)
    basis = Cosine((3, 8, 5)).fitted(x)[1]
    frequencies = torch.from_numpy(dctn(x.numpy(), axes=(2, 3), norm="ortho"))
    channels = basis.tensors["channels"]
    torch.testing.assert_close(basis.into(x), torch.einsum("ca,nchw->nahw", channels, frequencies))
    z = basis.into(x - x.mean(0))
    covariance = torch.einsum("nahw,nbhw->ab", z, z)
    off = covariance - covariance.diagonal().diag()
    assert float(off.abs().max()) < 1e-9 * float(covariance.max())
    torch.testing.assert_close(cosines(7) @ cosines(7).T, torch.eye(7, dtype=torch.float64))


def test_cosines_of_large_images_need_no_matrix() -> None:
    """3 x 256 x 256: what is saved is one 3 x 3 matrix."""
    x = torch.randn(4, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    moments, basis = Cosine((3, 256, 256)).fitted(iter(x.split(2)))
    assert {name: tuple(v.shape) for name, v in basis.tensors.items()} == {"channels": (3, 3)}
    assert moments.var.shape == (3, 256, 256)
    torch.testing.assert_close(basis.back(basis.into(x)), x, rtol=1e-4, atol=1e-4)


def test_smooth_images_have_few_frequencies() -> None:
    """What the basis is for: of images whose pixels resemble their neighbours a few directions hold nearly all."""
    stream = torch.Generator().manual_seed(0)
    walk = torch.randn(500, 1, 16, 16, generator=stream).cumsum(2).cumsum(3)
    shares = []
    for basis in (Cosine((1, 16, 16)), Coordinates((1, 16, 16))):
        var = basis.fitted(walk)[0].var.flatten().sort(descending=True).values
        shares.append(float(var[:16].sum() / var.sum()))
    assert shares[0] > 0.9 > 0.3 > shares[1]


@pytest.mark.parametrize("kind", list(BASES))
def test_made_again_from_what_is_saved(kind: str) -> None:
    x = data(60, 12).view(60, 1, 3, 4)
    basis = fitted(kind, (1, 3, 4), x)
    again = BASES[kind]((1, 3, 4), basis.tensors)
    assert torch.equal(again.into(x), basis.into(x))
    assert again.into(x.float()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["principal", "cosine"])
def test_unknown_before_data(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^basis='{kind}': is not known before data"):
        basis_of(kind, (1, 2, 2)).into(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("basis", "shape", "message"),
    [
        ("cosin", (2,), r"^basis='cosin': must be one of .*\(did you mean 'cosine'\?\)$"),
        ("cosine", (2,), r"^basis='cosine': data of shape \(2,\); must be images"),
        (torch.eye(3), (2,), r"^basis: shape \(3, 3\); an orthogonal matrix must be \(2, 2\)$"),
        (2 * torch.eye(2), (2,), r"^basis: Q'Q differs from the identity by 3; columns must be orthonormal$"),
        (torch.full((2, 2), math.nan), (2,), r"^basis: Q'Q differs from the identity by nan"),
    ],
)
def test_bad_bases(basis: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward_process("CLD", shape, basis=basis)


def test_a_full_matrix_brings_its_own_directions() -> None:
    a = torch.tensor([[0.0, -0.4], [-0.4, -1.0]])
    assert forward_process("VSCLD", (2,), variational_score=a).basis.name == "orthogonal"
    with pytest.raises(ValueError, match=r"^basis='principal': a full A has its own eigenvectors"):
        forward_process("VSCLD", (2,), variational_score=a, basis="principal")


@pytest.mark.parametrize("kind", list(BASES))
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_copies_on_a_device_stay_behind(kind: str, copied: Callable[[Basis], Basis]) -> None:
    """What is kept for one device must not travel to a machine without it."""
    x = data(60, 12).view(60, 1, 3, 4)
    basis = fitted(kind, (1, 3, 4), x)
    want = basis.into(x.float())
    assert basis._copies or kind == "coordinates"
    assert copied(basis)._copies == {}
    assert torch.equal(copied(basis).into(x.float()), want)


@pytest.mark.parametrize("kind", list(BASES))
def test_first_used_in_inference_mode(kind: str) -> None:
    """Copies that are kept serve gradients later."""
    x = data(60, 12).view(60, 1, 3, 4).float()
    basis = fitted(kind, (1, 3, 4), x)
    with torch.inference_mode():
        basis.back(basis.into(x))
    x.requires_grad_()
    basis.back(basis.into(x)).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach(), rtol=1e-4, atol=1e-4)


def test_bases_of_other_shapes() -> None:
    message = r"^basis='principal': is for data of shape \(3,\); must be for \(2,\)$"
    with pytest.raises(ValueError, match=message):
        forward_process("CLD", (2,), basis=Principal((3,)))
    with pytest.raises(ValueError, match=message):
        forward_process("CLD", (2,)).with_moments(torch.zeros(2), torch.ones(2), Principal((3,)))
