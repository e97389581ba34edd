r"""Potentials that are Gaussian mixtures: the first variational score beyond a linear one, all in closed form.

With a potential phi of the state at time T and a reference a_T | a_t ~ N(Phi a_t, N), the controlled process has drift
f + g g' grad log phi_t, phi_t(a) = E[phi(a_T) | a_t = a]. For

    phi(a) = sum_j exp(c_j + b_j'a - 1/2 a'P_j a),   I + N P_j positive definite,

phi_t is a mixture again, with b_j(t) = Phi'(I + P_j N)^{-1} b_j, P_j(t) = Phi' P_j (I + N P_j)^{-1} Phi and
c_j(t) = c_j - 1/2 log|I + N P_j| + 1/2 b_j'N (I + P_j N)^{-1} b_j.

One component with b = 0 and P = Pi_T is `vsmd.steering`. States are (n, k, *shape). A precision has blocks: of the k
numbers of one direction (diagonal), or of all directions (full).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vsmd import kernels
from vsmd.kernels import Kernel, Matrix

PART = 2**24  # numbers made at once


class Potential(NamedTuple):
    """phi(a) = sum_j exp(c_j + b_j'a - 1/2 a'P_j a) with c (m,), b (m, blocks, size), P (m, blocks, size, size).

    A block holds size/k directions, direction after direction. Any of the tensors' dtypes is that of the results.
    """

    constant: Tensor
    linear: Tensor
    precision: Tensor

    def blocks(self, a: Tensor) -> Tensor:
        """States a (n, k, *shape) as (n, blocks, size)."""
        return a.flatten(2).mT.reshape(len(a), *self.linear.shape[1:])

    def terms(self, y: Tensor) -> Tensor:
        """Logarithms (n, m) of the components at states y in blocks."""
        flat, rows = self.precision.flatten(1).T, max(1, PART // self.precision[0].numel())
        square = [(e[..., :, None] * e[..., None, :]).flatten(1) @ flat for e in y.split(rows)]
        return torch.addmm(self.constant - 0.5 * torch.cat(square), y.flatten(1), self.linear.flatten(1).T)

    def log(self, a: Tensor) -> Tensor:
        """log phi (n,) at states a (n, k, *shape)."""
        return self.terms(self.blocks(a)).logsumexp(1)

    def pull(self, a: Tensor) -> Tensor:
        """The last component of grad log phi at states a (n, k, *shape): the control over g^2; (n, *shape)."""
        k, out = a.shape[1], []
        steep, lean = self.precision.unflatten(2, (-1, k))[:, :, :, -1], self.linear.unflatten(2, (-1, k))[..., -1]
        for y in self.blocks(a).split(max(1, PART // steep[0].numel())):
            share = self.terms(y).softmax(1)
            mixed = (share @ steep.flatten(1)).view(len(y), *steep.shape[1:])
            out.append(share @ lean.flatten(1) - (mixed @ y[..., None]).flatten(1))
        return torch.cat(out).view_as(a[:, -1])

    def pull_divergence(self, a: Tensor) -> Tensor:
        """Sum over directions of the derivative of `pull` by the last component of its direction; (n,)."""
        k, y = a.shape[1], self.blocks(a)
        share = self.terms(y).softmax(1)
        steep = self.precision.unflatten(2, (-1, k))[:, :, :, -1]  # (m, blocks, directions, size)
        slope = steep.unflatten(3, (-1, k))[..., -1].diagonal(dim1=2, dim2=3).flatten(1).sum(1)
        lean = self.linear.unflatten(2, (-1, k))[..., -1].flatten(1)
        rows = max(1, PART // steep.numel())
        each = [(lean - torch.einsum("mbgi,nbi->nmbg", steep, e).flatten(2)).square().sum(2) for e in y.split(rows)]
        return (share * (torch.cat(each) - slope)).sum(1) - self.pull(a).square().flatten(1).sum(1)

    def earlier(self, kernel: Kernel) -> Potential:
        """E[phi(a_T) | a_t] for the reference's kernel from t to T, whose entries are numbers; again a potential."""
        phi, noise = (lifted(m, self.linear.shape[-1]) for m in kernel)
        eye = torch.eye(len(phi), dtype=phi.dtype)
        tilt = eye + self.precision @ noise
        linear = solve(tilt, self.linear[..., None])
        precision = phi.T @ solve(tilt, self.precision @ phi)
        gain = 0.5 * ((self.linear @ noise) * linear[..., 0]).flatten(1).sum(1)
        constant = self.constant - 0.5 * log_det(tilt).sum(1) + gain
        return Potential(constant, (phi.T @ linear)[..., 0], (precision + precision.mT) / 2)


def lifted(m: Matrix, size: int) -> Tensor:
    """A k x k matrix of numbers as the block (size, size) of size/k directions."""
    return torch.block_diag(*[kernels.stacked(m).view(len(m), len(m))] * (size // len(m)))


def solve(m: Tensor, right: Tensor) -> Tensor:
    """m^{-1} right for matrices (..., size, size); of sizes 1 and 2 written out, a million at a time."""
    if m.shape[-1] == 1:
        return right / m
    if m.shape[-1] > 2:
        return torch.linalg.solve(m, right)
    a, b, c, d = (m[..., i, j, None] for i in range(2) for j in range(2))
    top, low = right[..., 0, :], right[..., 1, :]
    return torch.stack([d * top - b * low, a * low - c * top], -2) / (a * d - b * c)[..., None]


def log_det(m: Tensor) -> Tensor:
    """log det m of matrices with a positive one."""
    if m.shape[-1] > 2:
        return torch.linalg.slogdet(m)[1]
    return (m[..., 0, 0] if m.shape[-1] == 1 else m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]).log()
