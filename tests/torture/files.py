"""Damaged and hostile files for every reader: none may run, hang, fill the memory or leak a foreign exception."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from torture import children, mutations, reading, seeds
from torture.children import Forked
from torture.readers import READERS, Reader
from torture.tally import Row, Tally, scaled
from vsmd import files as stored

COUNT = 2_400  # files at scale 1
LIMIT = 12.0  # seconds that a file may take, half of them computing; on a busy machine `PATIENCE` times
PATIENCE = 20
FINE = ("read", "refused")
FOLDERS = ("predictor", "series", "series_zipped", "store", *(f"pictures/{s}" for s in seeds.PICTURES))


class Worker:
    """A reading process, started anew when it has died or hung."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: Forked | None = None

    def ask(self, reader: str, path: Path) -> dict[str, Any]:
        """What became of a file."""
        if self.process is None:
            self.start()
        os.write(self.orders, json.dumps({"reader": reader, "path": str(path)}).encode() + b"\n")
        ready = self.patient()
        line = self.answers.readline() if ready else ""
        if line:
            return dict(json.loads(line))
        status = self.stop(kill=not ready)
        if ready:
            return {"outcome": "died", "what": f"status {status}"}
        return {"outcome": "hung", "what": f"more than {LIMIT:g} s"}

    def patient(self) -> bool:
        """Whether it answers before it has computed for so long, or waited for nothing; a busy machine is no hang."""
        assert self.process is not None
        first = last = children.computed(self.process.pid)
        for _ in range(PATIENCE):
            if select.select([self.answers], [], [], LIMIT)[0]:
                return True
            now = children.computed(self.process.pid)
            if now - last < 0.05 or now - first > LIMIT / 2:
                return False
            last = now
        return False

    def start(self) -> None:
        """A new process, which reads in `folder`."""
        (asked, self.orders), (answer, answers) = os.pipe(), os.pipe()

        def work() -> None:
            os.close(self.orders)
            reading.serve(asked, answers)

        self.process = Forked(work, self.folder / "said", self.folder)
        self.answers = os.fdopen(answer)
        os.close(asked)
        os.close(answers)

    def stop(self, kill: bool = False) -> int | None:
        """End the process; its status."""
        if self.process is None:
            return None
        os.close(self.orders)
        if kill:
            self.process.send(signal.SIGKILL)
        status = self.process.wait()
        self.answers.close()
        self.process = None
        return status


class Damage:
    """Copies of sound files, each damaged once, in a work folder."""

    def __init__(self, sound: Path, work: Path, rng: np.random.Generator) -> None:
        self.sound, self.work, self.rng = sound, work, rng
        self.hostile = mutations.hostile()
        self.number = 0

    def one(self, reader: Reader) -> tuple[Path, str]:
        """The path of a damaged copy, and in words what was done."""
        self.number += 1
        source, place = self.sound / reader.source, self.work / f"{self.number}"
        target = place / (reader.twin or Path(reader.source).name)
        target.parent.mkdir(parents=True)
        if not source.is_dir():
            return target, self.written(source, target, reader.source.endswith(".safetensors"))
        shutil.copytree(source, target)
        chosen = sorted(path for path in source.rglob("*") if path.is_file())
        file = chosen[int(self.rng.integers(len(chosen)))].relative_to(source)
        return target, f"{file}: {self.written(source / file, target / file, file.suffix == '.safetensors')}"

    def written(self, source: Path, target: Path, tensors: bool) -> str:
        """Write one damaged file; its mutation."""
        rng, content = self.rng, source.read_bytes()
        draw = rng.random()
        if tensors and draw < 0.4:
            return self.meant(source, target)
        if draw < 0.12:
            name = list(self.hostile)[int(rng.integers(len(self.hostile)))]
            target.write_bytes(self.hostile[name])
            return name
        if draw < 0.15:
            return self.special(target)
        structured = [mutations.value] * 4 if source.suffix in (".json", ".ipynb") else []
        packed = [mutations.within] * 6 if content[:2] in (b"\x1f\x8b", b"PK") else []
        chosen = [*mutations.PLAIN, *structured, *packed]
        mutation = chosen[int(rng.integers(len(chosen)))]
        target.write_bytes(mutation(content, rng))
        return mutation.__name__

    def special(self, target: Path) -> str:
        """What is no file at all."""
        kind = int(self.rng.integers(4))
        target.unlink(missing_ok=True)
        if kind == 0:
            os.mkfifo(target)
        elif kind == 1:
            target.symlink_to(target.name)
        elif kind == 2:
            target.mkdir()
        else:
            with target.open("wb") as file:
                file.truncate(2**30)
        return ("a pipe", "a link to itself", "a folder", "a gigabyte of zeros")[kind]

    def meant(self, source: Path, target: Path) -> str:
        """A file whose checksum is right, and which says something else: a setting or a tensor is another."""
        import torch
        from safetensors import safe_open

        rng = self.rng
        with safe_open(str(source), framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        info, said = json.loads(metadata["info"]), "a setting"
        if rng.random() < 0.5:
            info = mutations.changed(info, rng)
        else:
            said = sorted(tensors)[int(rng.integers(len(tensors)))]
            value = tensors[said]
            other = [
                torch.full_like(value, float("nan")) if value.is_floating_point() else value - 10**6, -value.abs() - 1,
                value * 0, value.reshape(-1)[:0], value[None], value.double(), value.to(torch.int32), value * 1e30,
                torch.zeros(7, 3),
            ]  # fmt: skip
            tensors[said] = other[int(rng.integers(len(other)))].contiguous()
        stored.write(target, metadata["format"], tensors, info)
        return f"{said}, checksum right"


def run(tally: Tally, scale: float) -> None:
    """As many files for every reader."""
    with tempfile.TemporaryDirectory(prefix="torture-files-") as name:
        folder = Path(name)
        (folder / "work").mkdir()
        made = Forked(lambda: seeds.make(folder / "sound"), folder / "made")
        if made.wait():
            raise RuntimeError(f"the sound files cannot be made: {made.said()}")
        rng = np.random.default_rng(tally.seed)
        damage, worker = Damage(folder / "sound", folder / "work", rng), Worker(folder / "work")
        try:
            for kind, reader in READERS.items():
                with tally.kind(kind, f"copies of {reader.source}") as row:
                    for _ in range(scaled(COUNT / len(READERS), scale)):
                        judge(tally, row, worker, damage, reader)
        finally:
            worker.stop()


def judge(tally: Tally, row: Row, worker: Worker, damage: Damage, reader: Reader) -> None:
    """Damage a file, have it read, and count what became of it."""
    path, done = damage.one(reader)
    answer = worker.ask(row.kind, path)
    canaries = [p for p in (worker.folder / mutations.CANARY, worker.folder.parent / mutations.CANARY) if p.exists()]
    for canary in canaries:
        answer = {"outcome": "executed", "what": "a file ran, or wrote elsewhere"}
        shutil.rmtree(canary) if canary.is_dir() else canary.unlink()
    if answer["outcome"] not in FINE:
        what = f"{answer['outcome']}: {answer['what']} ({done})"
        signature = f"{answer['outcome']} {answer['what'].split(':')[0][:80]}"
        tally.failed(row, signature, f"{row.kind} of the file kept beside this ({done})", what, [path])
    tally.did(row)
    shutil.rmtree(damage.work / f"{damage.number}")
