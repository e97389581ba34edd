"""dask's workers, by the address of their scheduler: they need this code, and share no folder with us.

A worker executes each run in a fresh process, as here, under a folder of its own, and hands the result back as text.
The scheduler places runs and moves those of a worker that dies. A worker with other code is given none.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed

from repro.grid import child, code
from repro.grid.launchers import Lost, Order, RunFailed, Unreachable
from repro.grid.spool import Finished
from vsmd.files import write_atomic

PATIENCE = 10.0  # seconds in which a scheduler must answer
MACHINERY = {"vsmd", "repro"}


def perform(order: Order, task: str) -> dict[str, Any]:
    """What a worker does; returns its address, exit status, log and result (text, or None)."""
    worker = distributed.get_worker()
    base = Path(worker.local_directory) / "vsmd"
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=base))
    spool, log = folder / "result.json", folder / "log"

    def unwanted() -> bool:  # the scheduler lets a task go when its driver is gone
        state = worker.state.tasks.get(task)
        return state is None or state.state == "cancelled"

    try:
        mine = {**order, "root": str(base), "spool": str(spool)}
        status = child.perform(mine, folder / "order.json", log, unwanted)
        text = spool.read_text(encoding="utf-8") if spool.exists() else None
        said = log.read_text(errors="replace")[-100_000:]
        return {"worker": worker.address, "status": status, "log": said, "result": text}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Task:
    """The handle of a task."""

    def __init__(self, owner: Dask, future: distributed.Future[dict[str, Any]], order: Order, among: set[str]) -> None:
        self.owner, self.future, self.among = owner, future, among
        self.spool = Path(order["spool"])

    def done(self) -> bool:
        self.owner.look()
        return self.future.done() or not self.among & self.owner.fit

    def fetch(self) -> None:
        self.owner.tasks.remove(self)
        future, status = self.future, self.future.status
        try:
            if status == "finished":
                self._take(future.result(timeout=PATIENCE))
                self.owner.look(after=0.0)  # who is gone is said, too, when no run waits any more
            elif status == "error":
                self._explain(future.exception(timeout=PATIENCE))
            elif status == "pending":
                raise Lost("the workers that it could go to are gone")
            else:
                raise Unreachable(f"scheduler={self.owner.address!r}: the connection is lost")
        except (TimeoutError, OSError) as error:
            raise Lost(f"its result did not arrive ({error or type(error).__name__})") from None
        finally:
            future.release()

    def _take(self, answer: dict[str, Any]) -> None:
        log = self.owner.cache / "logs" / f"{self.spool.stem}.log"
        write_atomic(log, answer["log"])
        if answer["status"] or answer["result"] is None:
            raise RunFailed(child.reason(answer["status"], log))
        used = Finished.read(answer["result"], self.spool.name).entry["code"]
        other = [m for m, digest in used.items() if self.owner.code.get(m, digest) != digest]
        if other:  # its files were changed after we had asked
            self.owner.bar(answer["worker"], other)
            raise Lost(f"worker {answer['worker']} has made it with other code")
        write_atomic(self.spool, answer["result"])

    def _explain(self, error: BaseException | None) -> None:
        if isinstance(error, distributed.scheduler.KilledWorker):
            raise RunFailed(f"took workers down with it, last {error.last_worker.address}")
        raise RunFailed(f"{type(error).__name__}: {error}".splitlines()[0])


class Dask:
    """Keeps every thread of the fit workers busy, and as many runs again waiting with the scheduler."""

    idle, poll = "waiting for a worker", 0.1

    def __init__(
        self, address: str, cache: Path, packages: Collection[str], workers: int | None, say: Callable[[str], None]
    ) -> None:
        self.address, self.cache, self.limit, self.say = address, cache, workers, say
        try:
            self.client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"scheduler={address!r}: no dask scheduler answers there ({type(error).__name__})"
            ) from None
        self.code = code.sources(MACHINERY | set(packages))
        self.fit, self.unfit = set[str](), dict[str, str]()
        self.tasks: list[Task] = []
        self._threads, self._asked, self._count = 0, float("-inf"), 0

    @contextmanager
    def vacancy(self) -> Iterator[bool]:
        self.look()
        yield len(self.tasks) < min(self.limit or 2 * self._threads, 2 * self._threads)

    def submit(self, order: Order, lock: int) -> Task:
        self._count += 1
        task = f"vsmd-{Path(order['spool']).stem}-{self.client.id}-{self._count}"
        future = self.client.submit(
            perform, order, task, key=task, pure=False, workers=sorted(self.fit), allow_other_workers=False
        )
        self.tasks.append(Task(self, future, order, set(self.fit)))
        return self.tasks[-1]

    def look(self, after: float = 1.0) -> None:
        """So many seconds after the last look: which workers have come, with which code, and which are gone."""
        if time.monotonic() - self._asked < after:
            return
        try:
            threads = self.client.nthreads()
            new = sorted(set(threads) - self.fit - set(self.unfit))
            answers = self.client.run(code.differing, self.code, workers=new, on_error="return") if new else {}
        except Exception as error:  # whatever a broken connection raises
            raise Unreachable(f"scheduler={self.address!r}: the connection is lost ({type(error).__name__})") from None
        for worker in self.fit - set(threads):
            self.say(f"worker {worker} is gone; its runs go elsewhere")
        for worker in new:
            answer = answers.get(worker, [])
            if worker in answers and answer == []:
                self.fit.add(worker)
            elif worker in answers:
                self.bar(worker, answer)
        self.fit &= set(threads)
        self.unfit = {worker: text for worker, text in self.unfit.items() if worker in threads}
        self._threads = sum(threads[worker] for worker in self.fit)
        if threads and set(threads) <= set(self.unfit):
            worker = min(threads)
            raise Unreachable(
                f"scheduler={self.address!r}: no worker has this code ({worker}: {self.unfit[worker]}); "
                "bring their checkouts to this commit and start them anew"
            )
        self._asked = time.monotonic()

    def bar(self, worker: str, answer: list[str] | BaseException) -> None:
        """Give a worker no more runs: the modules that differ, or what it raised when it was asked."""
        self.unfit[worker] = _names(answer) if isinstance(answer, list) else f"{type(answer).__name__}: {answer}"
        self.fit.discard(worker)
        self.say(f"worker {worker} has other code ({self.unfit[worker]}); runs go elsewhere")

    def close(self) -> None:
        for task in self.tasks:
            task.future.cancel()
        self.client.close()


def _names(modules: list[str]) -> str:
    """The first modules by name, and how many more."""
    more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
    return ", ".join(modules[:3]) + more
