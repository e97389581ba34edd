"""`python -m vsmd.images`: train, sample, evaluate; on N devices `torchrun --nproc_per_node=N -m vsmd.images`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from vsmd import checks
from vsmd.images.configs import CONFIGS, Config, config, parser
from vsmd.images.evaluation import METRICS, evaluate, told
from vsmd.images.sampling import FIXED, Painter
from vsmd.images.training import BEST, CHECKPOINT, LAST, SETTINGS, loaded, save_png, together, train, written
from vsmd.model import load
from vsmd.training import checkpoints
from vsmd.training.compute import PRECISIONS, Compute
from vsmd.training.distributed import World, launched


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def arguments() -> Parser:
    """The command line."""
    top = Parser(prog="python -m vsmd.images", description=__doc__, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)

    trains = commands.add_parser("train", help="train a model in a folder of its own", allow_abbrev=False)
    trains.add_argument("--config", help=f"where to start from: {', '.join(CONFIGS)}; on resume the run's own")
    trains.add_argument("--out", type=Path, help="the run's folder; runs/<config> by default")
    trains.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    fields = trains.add_argument_group("overrides of the configuration")
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        flag, kind = f"--{field.name.replace('_', '-')}", hints[field.name]
        fields.add_argument(flag, dest=f"set_{field.name}", type=parser(kind), metavar=getattr(kind, "__name__", "…"))

    samples = commands.add_parser("sample", help="draw images from a model", allow_abbrev=False)
    samples.add_argument("model", type=Path, help="a model file, or a run's folder")
    samples.add_argument("--out", type=Path, required=True, help="a folder for PNG files, or a file ending in .npz")
    samples.add_argument("-n", type=int, default=64, help="how many (64)")
    samples.add_argument("--seed", type=int, default=0, help="of the first image; the next ones count up (0)")
    samples.add_argument("--label", type=int, help="of all images, for a conditional model; they take turns without")

    scores = commands.add_parser("evaluate", help="distances of a model's samples to the data", allow_abbrev=False)
    scores.add_argument("model", type=Path, help="a model file, or a run's folder")
    scores.add_argument("--data", help="the images that it was trained on; a run's folder knows them")
    scores.add_argument("--metrics", default="FD-EffNet,KID", help=f"of {', '.join(METRICS)} (FD-EffNet,KID)")
    scores.add_argument("--reference", type=int, default=10_000, help="training images to compare with (10,000)")
    scores.add_argument("--out", type=Path, help="a CSV file for the figures")
    scores.add_argument("-n", type=int, default=2_000, help="samples (2,000)")
    scores.add_argument("--seed", type=int, default=0, help="of the first image (0)")
    for one in (samples, scores):
        one.add_argument("--best", action="store_true", help="of a run, the best model in place of the last")
        one.add_argument("--solver", default="heun", help=f"{', '.join(FIXED)} (heun)")
        one.add_argument("--evaluations", type=int, default=250, help="network calls an image (250)")
        one.add_argument("--grid-power", type=float, default=2.0, help="of the times t = u^power (2)")
        one.add_argument(
            "--denoise", action=argparse.BooleanOptionalAction, default=True,
            help="the last call removes the noise that is left where the times end (yes)",
        )  # fmt: skip
        one.add_argument("--batch-size", type=int, default=64, help="images drawn at once by each process (64)")
        one.add_argument("--precision", default="float32", help=f"{', '.join(PRECISIONS)} (float32)")
    for one in (trains, samples, scores):
        one.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    return top


def training(given: argparse.Namespace, device: torch.device) -> None:
    """`train`."""
    overrides = {k.removeprefix("set_"): v for k, v in vars(given).items() if k.startswith("set_") and v is not None}
    out = given.out
    if out is None and given.config is None:
        raise ValueError(f"config=None: must be given, one of {', '.join(map(repr, CONFIGS))}, or --out of a run")
    out = Path("runs") / given.config if out is None else out
    known = given.resume and given.config is None and (out / SETTINGS).exists()
    start = Config.from_text((out / SETTINGS).read_text(encoding="utf-8")) if known else config(given.config)
    chosen, first = start.with_overrides(overrides), World.current().first
    if first:
        print(chosen.text, f"out={out} device={device} processes={World.current().size}", sep="\n", file=sys.stderr)
    try:
        train(chosen, out, device=device, resume=given.resume)
    except KeyboardInterrupt:
        if first and (out / CHECKPOINT).exists():
            step = checkpoints.step_of(out / CHECKPOINT)
            print(f"stopped after step {step:,}; --resume --out {out} goes on", file=sys.stderr)
        raise


def painter_of(given: argparse.Namespace, device: torch.device) -> Painter:
    """The model and the solver that a command names."""
    path = given.model / (BEST if given.best else LAST) if given.model.is_dir() else given.model
    model = load(path)
    model.network.to(device)
    return Painter(
        model, given.solver, given.evaluations, grid_power=checks.positive("grid_power", given.grid_power),
        denoise=given.denoise, batch_size=given.batch_size, compute=Compute(given.precision),
    )  # fmt: skip


def sampling(given: argparse.Namespace, device: torch.device) -> None:
    """`sample`."""
    n, painter, world = checks.positive_int("n", given.n), painter_of(given, device), World.current()
    classes = getattr(painter.model.network, "classes", 0)
    if given.label is not None and not 0 <= given.label < classes:
        raise ValueError(f"label={given.label}: must be one of the model's {classes} classes, 0 to {classes - 1}")
    labels = (
        None if not classes else torch.arange(n) % classes if given.label is None else torch.full((n,), given.label)
    )
    seeds = range(given.seed, given.seed + n)
    if given.out.suffix == ".npz":
        drawn = together(painter, seeds, labels, world).permute(0, 2, 3, 1).numpy()
        if world.first:
            arrays: dict[str, Any] = {"images": drawn, "seeds": np.array(seeds)}
            arrays |= {} if labels is None else {"labels": labels.numpy()}
            written(given.out, lambda path: np.savez(path, **arrays))
        return
    own = range(world.rank, n, world.size)
    chosen = None if labels is None else labels[list(own)]
    for rows, part in painter.batches([seeds[i] for i in own], chosen):
        for i, image in zip(own[rows], part.permute(0, 2, 3, 1).numpy()):
            picture = image[..., 0] if image.shape[-1] == 1 else image
            written(given.out / f"{seeds[i]:06d}.png", lambda path, p=picture: save_png(path, p))  # type: ignore[misc]


def evaluating(given: argparse.Namespace, device: torch.device) -> None:
    """`evaluate`."""
    known = given.model / SETTINGS if given.model.is_dir() else given.model.with_name(SETTINGS)
    if given.data is None and not known.exists():
        raise ValueError("data=None: must name the images that the model was trained on; no run's folder tells")
    start = Config.from_text(known.read_text(encoding="utf-8")) if known.exists() else Config()
    chosen = start if given.data is None else start.with_overrides({"data": given.data})
    found, metrics = loaded(chosen, World.current()), given.metrics.split(",")
    reference = checks.positive_int("reference", given.reference)
    painter = painter_of(given, device)
    rows = evaluate(painter, found, given.n, metrics=metrics, reference=reference, seed=given.seed, device=device)
    told(rows, given.out)


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors of the user's are one line, and 2 is returned."""
    commands = {"train": training, "sample": sampling, "evaluate": evaluating}
    try:
        given = arguments().parse_args(argv)
        with launched(given.device) as device:
            commands[given.command](given, device)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
