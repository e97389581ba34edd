"""A model in latent space: autoencoder and bridge, trained one after the other, with the face of every other model."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vsmd
from vsmd import checks, files, stored
from vsmd import model as models
from vsmd.data.kinds import as_tensors, points_of
from vsmd.family import forward_process
from vsmd.latent import bridge as bridges
from vsmd.latent.autoencoder import AUTOENCODERS, Codec, check_fit, is_ours, placed
from vsmd.methods import METHODS
from vsmd.model import SOLVER, STEPS, Model
from vsmd.priors import COMPONENTS
from vsmd.processes import ForwardProcess
from vsmd.random import generator
from vsmd.training.data import Batch, Data, Source

FORMAT = "vsmd-latent-1"
CODES = 20_000  # draws of a sampler that the codes' scale is taken from
BATCH = 500  # points encoded or decoded at a time


@dataclass(frozen=True, eq=False)
class LatentModel:
    """What `fit` returns. `bridge` generates codes over `scale` (their root mean square deviation); `shape`: of data.

    `bridge` is an ordinary `vsmd.Model`: `model.process` shows what A has learned on the codes, direction by direction.
    """

    autoencoder: Codec
    bridge: Model
    scale: float
    shape: tuple[int, ...]

    @property
    def process(self) -> ForwardProcess:
        """The bridge's final process, on scaled codes."""
        return self.bridge.process

    def encode(self, x: Tensor) -> Tensor:
        """Scaled codes (n, *code_shape) of data x (n, *shape); ValueError for another shape or what is not finite."""
        return _encoded(self.autoencoder, checks.points("x", x, self.shape)) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Data (n, *shape) of scaled codes z (n, *code_shape)."""
        with torch.no_grad():
            device = placed(self.autoencoder)
            codes = ((rows.to(device) * self.scale).float() for rows in z.split(BATCH))
            return torch.cat([self.autoencoder.decode(rows).cpu() for rows in codes])

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)): the best that any bridge on these codes can do."""
        return self.decode(self.encode(x))

    def interpolate(self, x: Tensor, y: Tensor, points: int = 8) -> Tensor:
        """Decoded points of the straight lines between codes of x and y, both (n, *shape): (points, n, *shape)."""
        a, b = self.encode(x), self.encode(y)
        shares = torch.linspace(0, 1, checks.positive_int("points", points))
        return torch.stack([self.decode(torch.lerp(a, b, float(share))) for share in shares])

    def sample(self, n: int, solver: str = SOLVER, steps: int = STEPS, seed: int = 0, **options: Any) -> Tensor:
        """Draw n samples (n, *shape): codes by the bridge, decoded. Arguments and precision as of `vsmd.Model.sample`.

        The paper's SDE is solver="euler-maruyama". FloatingPointError if the codes diverge.
        """
        codes = self.bridge.sample(n, solver, steps, seed, **options)
        if not bool(torch.isfinite(codes).all()):
            raise FloatingPointError(f"codes are not finite: steps={steps} are too few for solver={solver!r}")
        return self.decode(codes)

    def with_prior(
        self, name: str, data: Data | None = None, components: int = COMPONENTS, seed: int = 0
    ) -> LatentModel:
        """The same model whose bridge starts from another prior; data as of `fit` for "mixture" and "empirical"."""
        codes = None if data is None else self.encode(points_of(data, self.shape, generator(seed, "prior data")))
        return dataclasses.replace(self, bridge=self.bridge.with_prior(name, codes, components, seed))

    def __repr__(self) -> str:
        return f"LatentModel of data {self.shape}: {type(self.autoencoder).__name__}, codes by a\n{self.bridge}"

    def to(self, device: str | torch.device) -> LatentModel:
        """The same model with its network and – where it is a module – its autoencoder on `device`."""
        codec, bridge = self.autoencoder, self.bridge.to(device)
        codec = copy.deepcopy(codec).to(bridge.score.device) if isinstance(codec, nn.Module) else codec
        return dataclasses.replace(self, autoencoder=codec, bridge=bridge)

    def with_stop(self, stop: float) -> LatentModel:
        """The same model with early stopping at another time in (0, 1); LSBDM only."""
        return dataclasses.replace(self, bridge=bridges.stopped(self.bridge, stop))

    def save(self, path: str | Path) -> Path:
        """Write bridge, scale and – if it is one of ours – autoencoder as one safetensors file, atomically."""
        path = Path(path)
        tensors, bridge = models.state(self.bridge)
        tensors = files.prefixed("bridge", tensors)
        autoencoder: dict[str, Any] = {"class": type(self.autoencoder).__name__}
        if is_ours(self.autoencoder):
            autoencoder = {"name": self.autoencoder.name, "settings": self.autoencoder.settings}
            tensors |= files.prefixed("autoencoder", self.autoencoder.state_dict())
        info = {"autoencoder": autoencoder, "bridge": bridge, "scale": self.scale, "shape": list(self.shape)}
        files.write(path, FORMAT, tensors, info)
        return path


def load(path: str | Path, autoencoder: Codec | None = None, device: str | torch.device = "cpu") -> LatentModel:
    """Read a model written by `LatentModel.save`; ValueError naming the path if it is missing, damaged or foreign.

    autoencoder: needed for models whose autoencoder is none of ours (the file holds the bridge only), and only then.
    device: of network and autoencoder (default "cpu").
    """
    tensors, info = files.read(path, FORMAT)
    with files.refusing(path):
        about = {"class": "autoencoder"} | info["autoencoder"]
    if ("name" in about) == (autoencoder is not None):
        need = "holds its own; leave it out" if "name" in about else f"holds no {about['class']}; it must be given"
        raise ValueError(f"autoencoder={type(autoencoder).__name__}: the file {need}")
    with files.refusing(path):
        bridge = models.from_state(files.part(tensors, "bridge"), info["bridge"])
        shape = tuple(checks.positive_int("shape", n) for n in info["shape"])
        if autoencoder is None:
            weights = files.part(tensors, "autoencoder")
            with stored.within(weights, about["settings"], shape):
                ours = AUTOENCODERS[about["name"]](**about["settings"])
            weights["scale"].expand(shape)  # or it is refused: one number, or one a coordinate
            ours.scale = weights["scale"]
            for name, value in ours.named_buffers(recurse=False):  # float64 where data are far from 0
                setattr(ours, name, value.to(weights[name].dtype))
            ours.load_state_dict(weights)
            autoencoder = ours.eval().requires_grad_(False)
        model = LatentModel(autoencoder, bridge, checks.positive("scale", info["scale"]), shape)
    return model if torch.device(device).type == "cpu" else model.to(device)


def fit(
    data: Data,
    *,
    autoencoder: Codec,
    bridge: str | ForwardProcess = "LSBDM",
    stop: float | None = None,
    seed: int = 0,
    **training: Any,
) -> LatentModel:
    """Train a bridge on the codes of `data`, z = encode(x)/scale, and return the model.

    Codes are divided by one number, so that their root mean square deviation is 1; their anisotropy stays.

    data: as of `vsmd.fit`, with contexts or without; points are encoded once, a sampler's as they are drawn.
    autoencoder: anything with encode and decode, trained.
    bridge: "LSBDM" (default: `schrodinger_bridge(shape)`), one of the six methods with its defaults, or a process for
        codes of that shape: `schrodinger_bridge(shape, sigma=3)`, `forward_process("VSCLD", shape, beta=2)`.
    stop: early-stopping time of LSBDM in (0, 1), default .999: noise of std sigma sqrt(1 - stop) stays on the codes.
    seed: of everything random (default 0).
    training: further arguments of `vsmd.fit` (steps, network, checkpoint, …); units are "raw" unless told otherwise.

    Raises ValueError if encoder and decoder do not fit each other, codes are constant in a coordinate or have more
    numbers than the data; warns where sigma is outside the range of the theory.
    """
    source, (points, context) = _prepared(data, seed)
    shape = check_fit(autoencoder, points[:2].float().to(placed(autoencoder)))
    process = _process(bridge, shape)
    if stop is None and process.row.early_stop:
        stop = bridges.STOP
    if stop is not None:
        bridges.last_time(process, stop)  # raises before anything is encoded or trained
    codes = _encoded(autoencoder, points)
    scale = _scale(codes)
    if stop is not None:
        bridges.warn_outside_theory(bridges.sigma_of(process), stop, codes / scale, seed)

    def drawn(n: int, stream: torch.Generator) -> tuple[Tensor, ...]:
        x, context = source.draw(n, stream)
        return (_encoded(autoencoder, x) / scale, *([] if context is None else [context]))

    held = (codes / scale, *([] if context is None else [context]))
    data = held if source.sampler is None else drawn
    model = vsmd.fit(process, data, seed=seed, **{"units": "raw"} | training)
    if stop is not None:
        model = bridges.stopped(model, stop)
    return LatentModel(autoencoder, model, scale, tuple(points.shape[1:]))


def _prepared(data: Data, seed: int) -> tuple[Source, Batch]:
    """The data, and points (n, *shape) with their contexts to look at; ValueError or TypeError for bad data."""
    data = as_tensors(data)
    first = as_tensors(data(2, generator(seed, "codes"))) if callable(data) else data
    shape = tuple((first[0] if isinstance(first, tuple) else first).shape[1:])
    source = Source(data, shape)
    batch = source.look(CODES, generator(seed, "codes"))
    return source, batch


def _encoded(codec: Codec, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = x if is_ours(codec) else x.float()  # ours are centred first
        return torch.cat([codec.encode(rows.to(placed(codec))).cpu() for rows in x.split(BATCH)])


def _scale(codes: Tensor) -> float:
    """The codes' root mean square deviation; ValueError for codes that are not finite or constant in a coordinate."""
    if not bool(torch.isfinite(codes).all()):
        raise ValueError("autoencoder: codes have NaN or inf; must be finite")
    std = codes.double().std(0, correction=0).flatten()
    size = float(std.square().mean().sqrt())
    flat = torch.nonzero(std <= 1e-6 * size).flatten().tolist()
    if flat:
        said = f"in {len(flat)} of {len(std)} coordinates ({flat[:8]}); use a smaller latent dimension"
        raise ValueError(f"autoencoder: codes have zero variance {said}")
    return size


def _process(bridge: str | ForwardProcess, shape: tuple[int, ...]) -> ForwardProcess:
    if isinstance(bridge, ForwardProcess):
        if bridge.shape != shape:
            raise ValueError(f"bridge: is for codes of shape {bridge.shape}; must be {shape} as the autoencoder's")
        return bridge
    name = checks.one_of("bridge", bridge, METHODS)
    if name == "LSBDM":
        return bridges.schrodinger_bridge(shape)
    return forward_process(name, shape, basis=bridges.directions(shape))
