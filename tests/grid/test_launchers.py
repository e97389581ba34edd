"""Runs on other machines: dask's workers, Slurm's jobs; the same rows, whoever made them, and nobody's death loses one.

Both engines run here: a scheduler and workers as processes of their own, and submitit's local executor.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from gridtools import alive, files, lines, wait_for

from repro.grid import Run, RunError, Status, Store, execute, launchers, product
from repro.grid.progress import Progress, Watch
from repro.reports.command import main

pytestmark = pytest.mark.usefixtures("own_pool")

HERE = Path(__file__).parents[1]
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs dask: the extra `cluster`")
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit: the extra `cluster`")
LOCAL = "slurm:cluster=local"


class Cluster:
    """A dask scheduler and its workers, of one thread, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, dict[str, "subprocess.Popen[bytes]"]()
        told = folder / "told.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-show", "--scheduler-file", str(told)]
        self.scheduler = self._started("dask_scheduler", options, folder)
        wait_for(lambda: told.exists() and told.read_text().endswith("}"), 120)
        self.address: str = json.loads(told.read_text())["address"]

    def _started(self, what: str, options: list[str], folder: Path, *paths: Path) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, HERE]))}
        command = [sys.executable, "-m", f"distributed.cli.{what}", *options, "--no-dashboard"]
        return subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.DEVNULL)

    def worker(self, name: str, value: int) -> None:
        """Start a worker, unless one of that name lives; its package `ownpackage` computes `value`."""
        if name not in self.workers or self.workers[name].poll() is not None:
            folder = self.folder / name
            own_package(folder / "code", value)
            options = [self.address, "--no-nanny", "--nthreads", "1", "--local-directory", str(folder)]
            self.workers[name] = self._started("dask_worker", options, folder, folder / "code")

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


def own_package(folder: Path, value: int) -> None:
    """A package whose run gives `value`, or fails for seed 0."""
    package = folder / "ownpackage"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "maths.py").write_text(f"def f():\n    return {value}\n")
    (package / "toy.py").write_text(
        "from repro.grid import Result\nfrom .maths import f\n"
        "def run(seed):\n    return Result({'t': [{'seed': 1 / seed, 'v': f()}]})\n"
    )


def held_at(log: Path) -> list[tuple[str, str, str]]:
    """Seed, name of the folder and process of every run that `tinyruns.held` has begun."""
    return [(seed, Path(folder).name, pid) for seed, folder, pid in map(str.split, lines(log))]


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", ["host:8786", "tpc://host:8786", "tcp://host", "slurm:long", "slurm:", "cluster"])
def test_a_name_that_is_none_is_refused_before_anything_is_run(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path))
    assert main(["--profile", "smoke", "--scheduler", bad]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"scheduler={bad!r}: must be an address of a dask scheduler")
    assert (said.out, said.err.count("\n")) == ("", 1)
    with pytest.raises(ValueError, match="scheduler="):
        execute([Run("tinyruns:run", {"method": "CLD", "seed": 0})], Store(tmp_path), progress=False, scheduler=bad)


def test_the_command_hands_the_scheduler_on_to_what_notebooks_execute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path))
    monkeypatch.setattr("repro.reports.command.reproduce", lambda *_: seen.append(os.environ["VSMD_SCHEDULER"]))
    assert main(["--profile", "smoke", "--scheduler", "cores"]) == 0
    assert (seen, "VSMD_SCHEDULER" in os.environ) == (["cores"], False)
    monkeypatch.setenv("VSMD_SCHEDULER", "moon")
    with pytest.raises(ValueError, match="scheduler='moon'"):
        execute([Run("tinyruns:run", {"method": "CLD", "seed": 0})], Store(tmp_path), progress=False)
    assert main(["--profile", "smoke"]) == 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("distributed", "submitit", "repro.grid.launchers.dask", "repro.grid.launchers.slurm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    for name, package in (("tcp://127.0.0.1:1", "distributed"), (LOCAL, "submitit")):
        with pytest.raises(ValueError, match=f"needs the package {package}; install the extra `cluster`"):
            launchers.check(name)


@needs_dask
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.grid.launchers.dask.PATIENCE", 0.3)
    with pytest.raises(ValueError, match=r"^scheduler='tcp://127\.0\.0\.1:9': no dask scheduler answers there"):
        launchers.check("tcp://127.0.0.1:9")


@needs_submitit
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slurm", "srun"),
        ("slurm:cluster=moon", "moon"),
        (f"{LOCAL},partitions=long", "partitions"),
        (f"{LOCAL},timeout_min=long", "timeout_min"),
        (f"{LOCAL},at_once=0", "at_once=0"),
    ],
)
def test_slurm_that_is_not_here_and_options_that_it_has_not(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"scheduler='{name}': .*{said}") as caught:
        launchers.check(name)
    assert "\n" not in str(caught.value)


# -- what is said on the way ------------------------------------------------------------------------------------------
def test_a_notebooks_lines_reach_the_drivers_terminal_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSMD_PROGRESS", str(tmp_path / "progress.json"))
    bar, watch = Progress(20, 0, True), Watch("02", tmp_path / "progress.json")
    bar.show([f"seed={i}" for i in range(18)])
    watch._show()
    bar.say("worker a is gone")
    for _ in range(2):
        bar.show(["seed=0"])
        watch._show()
    bar.say("worker b is gone")
    bar.show(["seed=0"])
    watch._show()
    said = capsys.readouterr().err
    assert "seed=15 · 2 more" in said
    assert said.count("worker a is gone\n") == said.count("worker b is gone\n") == 1


# -- dask -------------------------------------------------------------------------------------------------------------
@needs_dask
def test_two_workers_folders_apart_one_killed_give_the_same_bytes(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its run goes to the other, no child of the dead one is left, and the rows are those of this machine's cores."""
    log = tmp_path / "log"
    runs = product("tinyruns:held", seed=[0, 1, 2], log=str(log))
    for name in ("one", "two"):
        cluster.worker(name, value=2)

    def kill() -> None:
        wait_for(lambda: {folder for _, folder, _ in held_at(log)} == {"one", "two"}, 120)
        cluster.workers["one"].kill()
        wait_for(lambda: not any(alive(pid) for _, folder, pid in held_at(log) if folder == "one"))
        Path(f"{log}.go").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    store = Store(tmp_path / "away")
    assert execute(runs, store, scheduler=cluster.address) == Status(3, 0, 0)
    killer.join()
    begun = held_at(log)
    assert Counter(seed for seed, _, _ in begun) == {"0": 1, "1": 1, "2": 1} | {
        s: 2 for s, at, _ in begun if at == "one"
    }
    assert "is gone; its runs go elsewhere" in capfd.readouterr().err
    here = Store(tmp_path / "here")
    execute(runs, here, progress=False)
    assert files(store.root) == files(here.root)
    assert len(files(store.root)) == 4  # the table, and three files of points
    assert not list((store.cache / "spool").iterdir())


@needs_dask
def test_a_worker_with_other_code_is_named_and_given_nothing(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own_package(tmp_path, 1)
    monkeypatch.syspath_prepend(str(tmp_path))
    store, runs = Store(tmp_path / "r"), product("ownpackage.toy:run", seed=[1, 2, 0])
    cluster.worker("two", value=2)

    def said() -> str:
        with pytest.raises(RunError) as caught:
            execute(runs, store, progress=False, scheduler=cluster.address)
        return str(caught.value)

    assert re.match(r"scheduler='tcp:\S+': no worker has this code \(tcp:\S+: ownpackage\.maths\)", said())
    cluster.worker("same", value=1)
    wait_for(lambda: "no worker has this code" not in said(), 120)
    assert "seed=0: ZeroDivisionError: division by zero" in said()
    assert store.table("t")["v"].tolist() == [1, 1]
    assert "has other code (ownpackage.maths); runs go elsewhere" in capfd.readouterr().err
    assert "ZeroDivisionError" in (store.cache / "logs" / f"{runs[2].key}.log").read_text()


@needs_dask
def test_an_interrupted_driver_leaves_no_run_with_a_worker(tmp_path: Path, cluster: Cluster) -> None:
    pids, store = tmp_path / "pids", Store(tmp_path / "r")
    cluster.worker("two", value=2)

    def interrupt() -> None:
        wait_for(lambda: len(lines(pids)) == 1, 120)
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(product("tinyruns:pids", log=str(pids), seed=0), store, progress=False, scheduler=cluster.address)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: not alive(lines(pids)[0]), 60)


# -- Slurm ------------------------------------------------------------------------------------------------------------
@needs_submitit
def test_jobs_give_the_same_bytes_failures_their_reason_and_one_that_dies_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("repro.grid.launchers.slurm.Job.patience", 0.5)
    log, here, away = tmp_path / "log", Store(tmp_path / "here"), Store(tmp_path / "away")
    runs = product("tinyruns:held", seed=0, log=str(log)) + product("tinyruns:fail", kind="raise")

    def kill() -> None:
        wait_for(lambda: len(held_at(log)) == 1, 120)
        pid = int(held_at(log)[0][2])
        os.kill(parent(pid), signal.SIGKILL)  # the job, which waits for its child
        wait_for(lambda: not alive(str(pid)))
        Path(f"{log}.go").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    for store, scheduler in ((away, LOCAL), (here, "")):
        with pytest.raises(RunError, match="beta=-1: must be a finite number > 0") as caught:
            execute(runs, store, scheduler=scheduler)
        assert str(caught.value).startswith("1 of 2 runs failed")
    killer.join()
    assert len(held_at(log)) == 3
    assert "ended without a result" in capfd.readouterr().err
    assert files(away.root) == files(here.root)
    assert len(files(away.root)) == 2
    assert not list((away.cache / "slurm").glob("*.json"))


@needs_submitit
def test_a_job_of_an_order_that_was_taken_back_or_is_done_does_nothing(tmp_path: Path) -> None:
    """Two drivers one after the other, the first one killed: its job has gone on, and handed back what both wanted."""
    from repro.grid.launchers import slurm

    request, log = tmp_path / "slurm" / "a.json", tmp_path / "log"
    slurm.perform(str(request))
    spool = tmp_path / "spool.json"
    order = {"function": "tinyruns:run", "config": {"method": "CLD", "seed": 0, "log": str(log)}, "root": str(tmp_path)}
    request.write_text(json.dumps({**order, "profile": "", "commit": "", "spool": str(spool), "log": f"{log}.txt"}))
    slurm.perform(str(request))
    assert (lines(log), spool.exists()) == (["CLD-0"], True)
    slurm.perform(str(request))
    assert lines(log) == ["CLD-0"]


def parent(pid: int) -> int:
    """The process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
