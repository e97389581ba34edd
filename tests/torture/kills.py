"""Killed at random moments, and at the moment a file is put in its place; then resumed, to the same bits.

A kill that comes when all is done counts: nothing may be lost then either. Between kill and resume no file may be half
written: what stands under its name is what the undisturbed run had there at some time, or is read without an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gridtools
import numpy as np

import vsmd
from repro import grid
from torture import children, victims
from torture.children import Forked
from torture.tally import Row, Tally, scaled
from torture.victims import KEPT, VICTIMS

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COUNTS = {
    "toy": 14,
    "images": 14,
    "forecast": 7,
    "autoencoder": 6,
    "points": 6,
    "store": 7,
    "notebook": 3,
    "smoke": 1,
    "book": 1,
}
PROMPT = 30.0  # seconds within which a signal must have ended a process
SLOW = {"smoke", "book", "notebook"}  # whose work is done by children: struck from outside alone
PLACES = 40  # files that are put in place, of which one is struck


@dataclass
class Scene:
    """A victim, the folder that an undisturbed one has left, and the seconds that it took."""

    name: str
    reference: Path
    seconds: float

    def leaves(self, folder: Path) -> dict[str, object]:
        """What counts of a folder: digests of files, rows without times."""
        kept: dict[str, object] = dict(children.contents(folder, KEPT[self.name])) if KEPT[self.name] else {}
        for store in (folder / "store", folder / "reports" / "quick", folder / "reports" / "smoke"):
            if store.exists():
                kept |= {f"{store.name}/{name}": rows for name, rows in gridtools.files(store).items()}
        return kept


def play(name: str, folder: Path, before: Callable[[], None] = lambda: None) -> Forked:
    """Start a victim in a folder; `before` runs in its process first."""
    folder.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        victims.quiet()
        os.environ["VSMD_SLOTS"] = str(folder.parent / "slots")
        os.environ["PYTHONPATH"] = children.environment()["PYTHONPATH"]
        before()
        VICTIMS[name](folder)

    return Forked(work, folder.with_suffix(f".{time.monotonic_ns()}.said"), children.ROOT)


def staged(name: str, root: Path) -> Scene:
    """The undisturbed run."""
    began, folder = time.monotonic(), root / "reference" / name
    child = play(name, folder)
    if status := child.wait():
        raise RuntimeError(f"{name} ends with {status} undisturbed: {child.said()[-600:]}")
    return Scene(name, folder, time.monotonic() - began)


def attack(scene: Scene, folder: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Kill a victim once; in words how, and what was wrong with its end."""
    number = SIGNALS[int(rng.integers(3))]
    aimed = scene.name not in SLOW and rng.random() < 0.5
    if aimed:
        at, before = int(rng.integers(PLACES)), bool(rng.random() < 0.5)
        how = f"{number.name} {'before' if before else 'after'} replacement {at}"
        child = play(scene.name, folder, lambda: victims.strike(number, at, before))
        status = child.wait()
    else:
        moment = float(rng.random()) * scene.seconds * 1.05
        how = f"{number.name} after {moment:.3f} of {scene.seconds:.2f} s"
        child = play(scene.name, folder)
        time.sleep(moment)
        child.send(number)
        status = child.wait(PROMPT)
        clean(child)
    if status is None:
        return how, f"does not end within its time: {child.said()[-300:]}"
    return how, ""


def clean(child: Forked) -> None:
    """Wait until what a killed process has started is gone."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.killpg(child.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.05)


def halves(scene: Scene, folder: Path) -> list[str]:
    """Files under their own names that are not whole."""
    wrong = [f"{p.relative_to(folder)} is damaged" for p in folder.rglob("*.safetensors") if not children.whole(p)]
    if (out := folder / "out.csv").exists() and out.read_bytes() != (scene.reference / "out.csv").read_bytes():
        wrong.append("out.csv is half written")
    if (folder / "store" / "tables").exists():
        stored = grid.Store(folder / "store")
        states = stored.states(victims.runs(folder))
        log = gridtools.lines(folder / "log")
        if len(log) < sum(state != "missing" for state in states.values()):
            wrong.append(f"more runs are stored than were executed: {states} {log}")
    return wrong


def once(tally: Tally, row: Row, scene: Scene, folder: Path, number: int) -> None:
    """One to three kills of one run, then its resume, held against the undisturbed one."""
    rng = np.random.default_rng([tally.seed, number, len(scene.name)])
    said = []
    for _ in range(int(rng.choice([1, 1, 2, 3])) if scene.name not in SLOW else 1):
        how, wrong = attack(scene, folder, rng)
        said.append(how)
        row.note = f"{int(row.note.split()[0] if row.note else 0) + 1} kills"
        found = [wrong, *halves(scene, folder)]
        if any(found):
            tally.failed(
                row,
                found[0][:40],
                f"{scene.name} {number}: {'; '.join(said)}",
                "; ".join(filter(None, found)),
                [folder],
            )
            return
    child = play(scene.name, folder)
    status = child.wait()
    how = f"--only kills --seed {tally.seed}: {scene.name} {number}: {'; '.join(said)}"
    if status:
        tally.failed(row, "resume", how, f"its resume ends with {status}: {child.said()[-600:]}", [folder])
    elif status is None:
        tally.failed(row, "resume", how, f"its resume does not end: {child.said()[-600:]}", [folder])
    elif other := children.differing(scene.leaves(folder), scene.leaves(scene.reference)):
        tally.failed(row, f"differs {other[:2]}", how, f"after its resume {other} differ", [folder])


def two_at_once(tally: Tally, row: Row, root: Path, number: int) -> None:
    """Two drivers of one store execute every run once; of two trainings in one folder one is refused in a line."""
    folder = root / f"two-{number}"
    pair = [play("store", folder) for _ in range(2)]
    ends = [child.wait() for child in pair]
    log = sorted(gridtools.lines(folder / "log"))
    if ends != [0, 0] or len(log) != len(set(log)) or len(log) != len(victims.runs(folder)):
        tally.failed(row, "store", f"two drivers of {folder.name}", f"ends {ends}, runs {log}", [folder])
    tally.did(row)
    place = root / f"two-runs-{number}"
    first = play("images", place)
    while not (place / "run").exists() and first.poll() is None:
        time.sleep(0.01)
    second = play("images", place)
    said = second.wait(), second.said(), first.wait()
    refused = said[0] == 1 and "another process trains there" in said[1]
    finished = said[0] == 0 and said[2] == 0  # one after the other
    if not (refused or finished) or said[2] not in (0, None):
        tally.failed(
            row, "images", f"two trainings in {place.name}", f"{said[0]}, {said[2]}: {said[1][-300:]}", [place]
        )
    vsmd.load(place / "run" / "model.safetensors")
    tally.did(row)


def run(tally: Tally, scale: float) -> None:
    """Every victim, so many times."""
    with tempfile.TemporaryDirectory(prefix="torture-kills-") as name:
        root = Path(name)
        for victim, count in COUNTS.items():
            if victim in SLOW and count * scale < 0.5:
                continue
            with tally.kind(victim, (VICTIMS[victim].__doc__ or "").split("\n")[0]) as row:
                scene = staged(victim, root)
                for number in range(scaled(count, scale)):
                    folder = root / victim / f"{number}"
                    once(tally, row, scene, folder, number)
                    shutil.rmtree(folder, ignore_errors=True)
                    tally.did(row)
        with tally.kind("two at once", "two drivers of one store, two trainings in one folder") as row:
            for number in range(scaled(3, scale)):
                two_at_once(tally, row, root, number)
