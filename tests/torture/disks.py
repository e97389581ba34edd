"""Full disks and read-only folders for every writer: one clear line, nothing half written, what was there stays.

A small tmpfs where this process may mount one. Elsewhere a limit on the size of files stands for the full disk, and
permissions for the read-only one; where neither bites – a container's root without mounts – a row says so.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tinyimages as tiny
import torch

import vsmd
from repro import grid
from torture import seeds
from torture.children import Forked, contents, whole
from torture.tally import Row, Tally, scaled
from vsmd import command, files, latent
from vsmd.forecasting import VSMDPredictor
from vsmd.images.__main__ import main as images_main
from vsmd.images.training import CHECKPOINT, train

SIZE = 4_000_000  # bytes of the disk
ROOMS = 12  # amounts of free space that each writer is tried with
DOCUMENTED = (OSError, ValueError)


def _models(folder: Path) -> dict[str, Any]:
    return {name: vsmd.load(folder / f"{name}.safetensors") for name in ("model", "bridge")}


def _command(line: str) -> None:
    """A command of `vsmd`; what it prints in one line with status 2 is raised."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = images_main(line.split()[1:]) if line.startswith("images") else command.main(line.split())
    errors = [text for text in said.getvalue().splitlines() if text.startswith("error: ")]
    if status:
        raise OSError(errors[-1] if status == 2 and len(errors) == 1 else f"status {status}\n{said.getvalue()[-400:]}")


def writers(sound: Path, scratch: Path) -> dict[str, Callable[[Path], object]]:
    """By name, functions that write into a folder; called a second time, they write the same or go on."""
    data = scratch / "data.csv"
    pd.DataFrame(seeds.points(200).numpy(), columns=["a", "b", "c"]).to_csv(data, index=False)
    coded, model = latent.load(sound / "latent.safetensors"), vsmd.load(sound / "model.safetensors")
    predictor = VSMDPredictor.deserialize(sound / "predictor")
    config = tiny.config(steps=6, every=3, keep=2)
    provenance = {"date": "2026-01-01", "seconds": 1.0, "commit": "", "device": "cpu", "torch": "2"}
    (run,) = grid.product("tinyruns:run", method="CLD", seed=[0])
    rows = [{"seed": 0, "n": i, "error": i / 7} for i in range(2_000)]
    result = grid.Result({"tiny": rows}, {"p": np.random.default_rng(0).normal(size=(3_000, 2))})
    images = scratch / "images"
    train(config, images, data=tiny.pictures())

    def trained(folder: Path) -> None:
        train(config, folder, data=tiny.pictures(), resume=(folder / CHECKPOINT).exists())

    drawn_points = f"points {data} --steps 2 --prior moments --force"
    drawn = f"images sample {images} -n 4 --evaluations 3 --device cpu --out"
    return {
        "Model.save": lambda f: model.save(f / "model.safetensors"),
        "checkpoints": lambda f: seeds.checkpointed(f / "c.safetensors"),
        "LatentModel.save": lambda f: coded.save(f / "latent.safetensors"),
        "latent.pretrain": lambda f: seeds.pretrained(f / "p.safetensors"),
        "predictor folders": lambda f: predictor.serialize(f / "predictor"),
        "early stopping": lambda f: seeds.estimator(patience=2, checkpoint=f / "e.safetensors").train(seeds.walk(200)),
        "vsmd points": lambda f: _command(f"{drawn_points} --out {f}/out.csv --model {f}/m.safetensors"),
        "image runs": trained, "images sample npz": lambda f: _command(f"{drawn} {f}/drawn.npz"),
        "images sample png": lambda f: _command(f"{drawn} {f}/sheet.png"),
        "images sample folder": lambda f: _command(f"{drawn} {f}/drawn"),
        "tables and points": lambda f: grid.Store(f / "store").put(run, result, code={}, provenance=provenance),
        "texts": lambda f: files.write_atomic(f / "x.json", "x" * 50_000),
    }  # fmt: skip


@contextmanager
def disk(place: Path) -> Iterator[bool]:
    """A disk of its own at `place`; whether there is one."""
    place.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    mounted = os.getuid() == 0 and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], capture_output=True)


@contextmanager
def full(folder: Path, room: int, mounted: bool) -> Iterator[None]:
    """While entered so many bytes are free, or no file may have more."""
    if not mounted:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    ballast = folder.parent / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - room)))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def closed(place: Path, mounted: bool) -> Iterator[bool]:
    """While entered nothing can be written there; whether that holds."""
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], capture_output=True)
    else:
        for path in (place, *(p for p in place.rglob("*") if p.is_dir())):
            path.chmod(0o555)
    try:
        yield mounted or os.getuid() != 0
    finally:
        if mounted:
            subprocess.run(["mount", "-o", "remount,rw", str(place)], capture_output=True)
        else:
            for path in (place, *(p for p in place.rglob("*") if p.is_dir())):
                path.chmod(0o755)


def complaint(error: BaseException) -> str:
    """What is wrong with how a writer has ended."""
    text = str(error)
    if not isinstance(error, DOCUMENTED):
        return f"{type(error).__name__}: {text[:300]}"
    return f"is no line: {text[:300]!r}" if "\n" in text or not text else ""


def tried(write: Callable[[Path], object], folder: Path) -> str:
    """What was wrong with the error, if it was not written."""
    torch.manual_seed(0)
    try:
        write(folder)
    except BaseException as error:
        return complaint(error)
    return ""


def left(folder: Path, old: dict[str, str], new: dict[str, str]) -> str:
    """What stands in the folder that neither an old one nor a whole new one has; what is gone."""
    now = contents(folder)
    temporary = [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.is_file() and "tmp" in p.name]
    other = [n for n, digest in now.items() if digest not in (old.get(n), new.get(n)) and ".cache" not in n]
    half = [n for n in other if not (n.endswith(".safetensors") and whole(folder / n)) and "log" not in n]
    gone = [n for n in old if n not in now and ".cache" not in n]
    found = {"temporary files": temporary, "half written": half, "gone": gone}
    return "; ".join(f"{what}: {names[:4]}" for what, names in found.items() if names)


def attempt(
    tally: Tally, row: Row, name: str, write: Callable[[Path], object], place: Path, mounted: bool, scale: float
) -> None:
    """A writer on a disk with ever more room, with and without an older version there; then on a closed one."""
    folder = place / "work"
    folder.mkdir()
    tried(write, folder)
    new, size = contents(folder), sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    rooms = np.unique(np.linspace(0, size * 1.1, scaled(ROOMS, max(scale, 0.2))).astype(int))
    for older in (True, False):
        for room in rooms:
            if not older:
                shutil.rmtree(folder)
                folder.mkdir()
            old = contents(folder)
            with full(folder, int(room), mounted):
                wrong = tried(write, folder)
            wrong = wrong or left(folder, old, new)
            if wrong:
                tally.failed(row, f"{name} full", f"{name} with {room} of {size} bytes free, {older=}", wrong)
            tally.did(row)
            if older:
                tried(write, folder)
    shutil.rmtree(folder)
    folder.mkdir()
    tried(write, folder)
    old = contents(folder)
    with closed(place, mounted) as bites:
        wrong = tried(write, folder) if bites else ""
        wrong = wrong or left(folder, old, old)
    if not bites:
        row.note = "read-only folders skipped: root, and no disk may be mounted"
    if wrong:
        tally.failed(row, f"{name} read-only", f"{name} into a read-only folder", wrong)
    tally.did(row)
    shutil.rmtree(folder)


def run(tally: Tally, scale: float) -> None:
    """Every writer, in a process of its own, since a limit on files cannot always be taken back."""
    with tempfile.TemporaryDirectory(prefix="torture-disks-") as name:
        root = Path(name)
        made = Forked(lambda: seeds.make(root / "sound"), root / "made")
        if made.wait():
            raise RuntimeError(f"the sound files cannot be made: {made.said()}")
        chosen = writers(root / "sound", root)
        for number, (writer, write) in enumerate(chosen.items()):
            with tally.kind(writer, "full and read-only") as row, disk(root / f"disk{number}") as mounted:
                row.note = "" if mounted else "no disk may be mounted: a limit on the size of files in its place"
                attempt(tally, row, writer, write, root / f"disk{number}", mounted, scale)
