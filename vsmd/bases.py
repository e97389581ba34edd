"""Bases of a process: the orthonormal turn between data coordinates and the *directions* in which A is diagonal.

A basis turns centred data x (n, *shape) into directions z of the same shape and back. It is fitted together with the
data's moments, in one pass over a stream, and its tensors are saved with the model. A new one is a class here or
elsewhere and a line in `BASES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from vsmd import checks
from vsmd.moments import Moments, averaged

Stream = Tensor | Iterable[Tensor]  # data (n, *shape), or batches of such, seen once


class Basis(ABC):
    """An orthonormal basis of data of shape `shape`; `into` and `back` are inverses of each other.

    tensors: what a model file holds of it, by name; the class is made again from `shape` and them.
    """

    name: ClassVar[str]

    def __init__(self, shape: tuple[int, ...], tensors: dict[str, Tensor] | None = None) -> None:
        self.shape, self.tensors = shape, dict(tensors or {})
        self.constants: dict[str, Tensor] = {}  # what follows from the shape alone and need not be saved
        self._copies: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @abstractmethod
    def into(self, x: Tensor) -> Tensor:
        """Directions of centred data x (n, *shape)."""

    @abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """Centred data of directions z (n, *shape)."""

    @abstractmethod
    def fitted(self, data: Stream) -> tuple[Moments, Basis]:
        """The data's moments, variances per direction, and the basis with whatever it takes from the data."""

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """One of the basis's tensors or constants in the dtype and on the device of `like`; the copy is kept.

        Raises ValueError where the basis has not seen data yet.
        """
        key = (name, like.device, like.dtype)
        if key not in self._copies:
            values = self.tensors | self.constants
            if name not in values:
                raise ValueError(f"basis={self.name!r}: is not known before data; fit the process or call with_data")
            with torch.inference_mode(False):  # the copy outlives whatever mode it is first used in
                self._copies[key] = values[name].to(like.device, like.dtype)
        return self._copies[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies, some of them on accelerators: a pickled or deep-copied basis makes its own."""
        return self.__dict__ | {"_copies": {}}


class Coordinates(Basis):
    """The data's own coordinates: A is diagonal."""

    name = "coordinates"

    def into(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def back(self, z: Tensor) -> Tensor:
        """z itself."""
        return z

    def fitted(self, data: Stream) -> tuple[Moments, Basis]:
        """Mean and variance of every coordinate."""
        mean, var = averaged(data, lambda rows: rows.square().sum(0))
        return Moments(mean, var.view(mean.shape)), self


class Orthogonal(Basis):
    """z = Q'x for an orthogonal matrix Q (d, d) that is given: its columns are the directions."""

    name = "orthogonal"

    @classmethod
    def of(cls, matrix: Tensor, shape: tuple[int, ...]) -> Orthogonal:
        """The basis of a matrix (d, d); ValueError unless it is finite and Q'Q = I within 1e-6."""
        dim, q = math.prod(shape), torch.as_tensor(matrix, dtype=torch.float64)
        if q.shape != (dim, dim):
            raise ValueError(f"basis: shape {tuple(q.shape)}; an orthogonal matrix must be {(dim, dim)}")
        off = float((q.T @ q - torch.eye(dim, dtype=torch.float64)).abs().max())
        if not off <= 1e-6:
            raise ValueError(f"basis: Q'Q differs from the identity by {off:.3g}; columns must be orthonormal")
        return cls(shape, {"matrix": q.contiguous()})

    def into(self, x: Tensor) -> Tensor:
        """Q'x."""
        return (x.flatten(1) @ self.tensor("matrix", x)).view_as(x)

    def back(self, z: Tensor) -> Tensor:
        """Q z."""
        return (z.flatten(1) @ self.tensor("matrix", z).T).view_as(z)

    def fitted(self, data: Stream) -> tuple[Moments, Basis]:
        """Mean, and variance along every column."""
        mean, var = averaged(data, lambda rows: (rows @ self.tensor("matrix", rows)).square().sum(0))
        return Moments(mean, var.view(mean.shape)), self


class Principal(Orthogonal):
    """The data's principal axes: the eigenvectors of their covariance matrix (d, d), least variance first."""

    name = "principal"

    def fitted(self, data: Stream) -> tuple[Moments, Basis]:
        """Mean, eigenvalues and axes."""
        mean, covariance = averaged(data, lambda rows: rows.T @ rows)
        var, axes = torch.linalg.eigh(covariance)
        basis = Principal(self.shape, {"matrix": axes.contiguous()})  # as a model file will hold it, bit for bit
        return Moments(mean, var.clamp(min=0).view(mean.shape)), basis


class Cosine(Basis):
    r"""Images (C, H, W): the orthonormal cosine transform of rows and columns, principal axes of the channels.

    z_{auv} = sum_{cij} Q_ca D_ui E_vj x_{cij},  D_ui = sqrt((2 - [u = 0])/H) cos(pi u (2 i + 1)/(2 H)), E alike for W.
    Q are the eigenvectors of the channels' covariance, one (C, C) matrix for all frequencies: no (d, d) matrix is made,
    and a turn costs H + W + C multiplications a pixel. Raises ValueError for data that are no images.
    """

    name = "cosine"

    def __init__(self, shape: tuple[int, ...], tensors: dict[str, Tensor] | None = None) -> None:
        if len(shape) != 3:
            raise ValueError(f"basis='cosine': data of shape {shape}; must be images (channels, height, width)")
        super().__init__(shape, tensors)
        self.constants = {"rows": cosines(shape[1]), "columns": cosines(shape[2])}

    def _turned(self, x: Tensor, back: bool) -> Tensor:
        """The transform of rows and columns of x (n, C, H, W), or its inverse."""
        rows, columns = self.tensor("rows", x), self.tensor("columns", x)
        return rows.T @ x @ columns if back else rows @ x @ columns.T

    def into(self, x: Tensor) -> Tensor:
        """Frequencies (n, C, H, W) of images x."""
        return torch.einsum("ca,nchw->nahw", self.tensor("channels", x), self._turned(x, back=False))

    def back(self, z: Tensor) -> Tensor:
        """Images of frequencies z."""
        return self._turned(torch.einsum("ca,nahw->nchw", self.tensor("channels", z), z), back=True)

    def fitted(self, data: Stream) -> tuple[Moments, Basis]:
        """Mean, variance of every frequency, and the channels' axes."""

        def products(rows: Tensor) -> Tensor:
            z = self._turned(rows.view(-1, *self.shape), back=False)
            return torch.einsum("nchw,ndhw->cdhw", z, z)

        mean, covariance = averaged(data, products)  # of the channels, frequency by frequency
        _, axes = torch.linalg.eigh(covariance.mean((2, 3)))
        var = torch.einsum("ca,cdhw,da->ahw", axes, covariance, axes)
        return Moments(mean, var.clamp(min=0)), Cosine(self.shape, {"channels": axes.contiguous()})


def cosines(size: int) -> Tensor:
    """The orthonormal cosine transform (n, n), float64: D_ui = sqrt((2 - [u = 0])/n) cos(pi u (2 i + 1)/(2 n))."""
    u, i = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    matrix = (math.pi * u * (2 * i + 1) / (2 * size)).cos() * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


BASES: dict[str, type[Basis]] = {basis.name: basis for basis in (Coordinates, Principal, Cosine, Orthogonal)}


def basis_of(basis: str | Tensor | Basis, shape: tuple[int, ...]) -> Basis:
    """The basis of a name in `BASES`, of an orthogonal matrix (d, d), or itself, for data of shape `shape`.

    Raises ValueError for an unknown name, a basis of another shape, or what is not orthogonal.
    """
    if isinstance(basis, Basis):
        if tuple(basis.shape) != shape:
            raise ValueError(f"basis={basis.name!r}: is for data of shape {tuple(basis.shape)}; must be for {shape}")
        return basis
    if isinstance(basis, Tensor):
        return Orthogonal.of(basis, shape)
    names = [name for name in BASES if name != Orthogonal.name]
    return BASES[checks.one_of("basis", basis, names)](shape)
