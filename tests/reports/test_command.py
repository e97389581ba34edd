from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from repro import grid
from repro.grid import verify
from repro.reports import command

HERE = Path(__file__).parents[1]
PARAMETERS = 'profile = "quick"'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A throw-away repository, slots of its own, and a global kernel called python3 that cannot start."""
    folder = tmp_path / "repository"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    decoy = tmp_path / "jupyter/kernels/python3/kernel.json"
    decoy.parent.mkdir(parents=True)
    decoy.write_text(json.dumps({"argv": ["false"], "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("VSMD_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
    for name in ("VSMD_REPORTS", "REFRESH", "VSMD_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, *cells: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (PARAMETERS, *cells)])
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, path)


def drive(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "repro", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout


def grid_cell(log: Path, function: str = "run", slow: float = 0.0) -> str:
    return (
        "from repro import grid\nstore = grid.profile(profile).store\n"
        f"runs = grid.product('tinyruns:{function}', method='CLD', seed=[0, 1], slow={slow}, log={str(log)!r})\n"
        "print(grid.execute(runs, store))\nstore.table('tiny', runs)"
    )


def test_report_once_then_nothing_then_what_changed(repository: Path, tmp_path: Path) -> None:
    log, notebooks, root = tmp_path / "log", repository / "notebooks", repository / "reports/quick"
    write(notebooks / "01_good.ipynb", grid_cell(log))
    write(notebooks / "02_bad.ipynb", "print(profile)", "1 / 0")
    code, said = drive("--profile", "quick")
    assert code == 1
    assert "[1/2] 01_good: done in " in said
    assert "[2/2] 02_bad: FAILED: cell 4: ZeroDivisionError: division by zero (see reports/quick/.cache/failed/" in said
    assert "1 of 2 notebook(s) failed" in said
    out = nbformat.read(root / "01_good.ipynb", as_version=4)
    assert [c.source for c in out.cells][1].endswith('profile = "quick"\n')
    assert len(out.cells) == 3  # parameters, injected parameters, ours: nothing of the driver's
    assert out.cells[2].outputs[0].text == "Status(fresh=2, stale=0, missing=0)\n"
    text = (root / "01_good.ipynb").read_text()
    assert "papermill" not in out.metadata
    assert out.metadata.kernelspec.name == "python3"
    assert str(Path(sys.executable).parent) not in text
    assert not (root / "02_bad.ipynb").exists()
    record = json.loads((root / "01_good.run.json").read_text())
    assert record["peak_rss_mb"] > 10
    assert set(record["used"]["runs"]) == set(grid.profile("quick").store.entries())
    assert "repro.grid.pool" in record["used"]["modules"]
    assert "[01_good](01_good.ipynb)" in (root / "README.md").read_text()

    files = {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file() and ".cache" not in p.parts
    }
    assert drive("--only", "1") == (
        0,
        "profile quick: 1 notebook(s) -> reports/quick\n[1/1] 01_good: up to date\nreport: reports/quick/README.md\n",
    )
    assert files == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    # What must bring it back: its source (not its outputs), its code, its rows; not another notebook's rows.
    where = grid.profile("quick")
    good = notebooks / "01_good.ipynb"
    assert command.up_to_date(good, where)
    store = where.store
    store.put(
        grid.Run("m:f"),
        grid.Result({"tiny": [{"method": "SGM", "seed": 0}]}),
        code={},
        provenance={"date": "2025-01-01", "seconds": 1.0},
    )
    assert command.up_to_date(good, where)
    nb = nbformat.read(good, as_version=4)
    nb.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    nbformat.write(nb, good)
    assert command.up_to_date(good, where)
    record["used"]["modules"]["repro.grid.pool"] = "0" * 12
    (root / "01_good.run.json").write_text(json.dumps(record))
    assert not command.up_to_date(good, where)
    record = json.loads(files[root / "01_good.run.json"][1])
    (root / "01_good.run.json").write_text(json.dumps(record))
    assert command.up_to_date(good, where)
    store.remove(list(record["used"]["runs"])[:1])
    assert not command.up_to_date(good, where)
    assert not command.up_to_date(good, grid.profile("smoke"))


def interruptible() -> None:
    """A shell's background job ignores SIGINT, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_it_continues(repository: Path, tmp_path: Path) -> None:
    log, pid, go = tmp_path / "log", tmp_path / "pid", tmp_path / "go"
    wait = f"import time\nwhile not Path({str(go)!r}).exists():\n    time.sleep(0.05)"
    here = f"import os\nfrom pathlib import Path\nPath({str(pid)!r}).write_text(str(os.getpid()))"
    write(repository / "notebooks/01_slow.ipynb", grid_cell(log).removesuffix("store.table('tiny', runs)"), here, wait)
    limit = time.monotonic() + 90
    for sign in (signal.SIGINT, signal.SIGKILL):
        command = [sys.executable, "-m", "repro"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=interruptible)
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.05)
        kernel = Path(f"/proc/{pid.read_text()}/status")
        pid.unlink()
        process.send_signal(sign)
        out, _ = process.communicate(timeout=30)
        if sign == signal.SIGINT:
            assert process.returncode == 130
            assert b"interrupted: finished runs are kept" in out
            assert b"Traceback" not in out
        while kernel.exists() and "State:\tZ" not in kernel.read_text():
            assert time.monotonic() < limit
            time.sleep(0.05)
        assert not (repository / "reports/quick/01_slow.ipynb").exists()
    go.touch()
    code, said = drive()
    assert code == 0, said
    assert (repository / "reports/quick/01_slow.ipynb").exists()
    assert sorted(log.read_text().splitlines()) == ["CLD-0", "CLD-1"]


def test_notebooks_of_any_folder(repository: Path, tmp_path: Path) -> None:
    """A notebook from outside keeps its runs, of a function beside it, and its report in the repository's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    study = (
        "from repro.grid import Result\ndef run(seed):\n    return Result({'mine': [{'seed': seed, 'v': 2 * seed}]})\n"
    )
    (folder / "mystudy.py").write_text(study)
    cell = (
        "from repro import grid, reports\nreport = reports.Report('31_mine', profile)\n"
        "runs = grid.product('mystudy:run', seed=[1, 2])\ngrid.execute(runs, report.store)\n"
        "report.save_table(report.store.table('mine', runs), '31_table', 'Mine.')"
    )
    write(folder / "31_mine.ipynb", cell)
    code, said = drive("--notebooks", str(folder))
    assert code == 0, said
    root = repository / "reports/quick"
    assert (root / "tables/mine.csv").read_text() == "seed,v\n1,2\n2,4\n"
    assert "**31_table.** Mine." in (root / "README.md").read_text()
    assert (root / "31_mine.ipynb").exists()
    assert not (folder / "reports").exists()
    assert "31_mine: up to date" in drive("--notebooks", str(folder))[1]


def test_notebooks_run_from_outside_any_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "elsewhere/reports/quick"
    write(tmp_path / "mine/31_mine.ipynb", "print(profile)")
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    monkeypatch.setenv("VSMD_REPORTS", str(root.parent))
    code, said = drive("--notebooks", str(tmp_path / "mine"))
    assert code == 0, said
    assert nbformat.read(root / "31_mine.ipynb", as_version=4).cells[2].outputs[0].text == "quick\n"
    assert "31_mine: up to date" in drive("--notebooks", str(tmp_path / "mine"))[1]


@pytest.mark.parametrize("place", ["reports", "reports/quick", "reports/quick/tables"])
def test_reports_that_cannot_be_written_are_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A file where the folder should be stands for a read-only disk, which root does not feel."""
    write(repository / "notebooks/01_a.ipynb", "1 / 0")
    if place.endswith("tables"):

        def refuse(dir: Path) -> io.BytesIO:
            if dir.name == "tables":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return io.BytesIO()

        (repository / place).mkdir(parents=True)
        monkeypatch.setattr("repro.grid.files.tempfile.TemporaryFile", refuse)
    else:
        (repository / place).parent.mkdir(exist_ok=True)
        (repository / place).write_text("")
    for call in (command.main, verify.main):
        assert call([]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"reports={str(repository / 'reports/quick')!r}: cannot be written (" in err


def test_a_disk_that_fills_up_is_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("repro.reports.page.write", full)
    assert command.main([]) == 1
    assert (
        capsys.readouterr().err
        == "report: cannot be written: [Errno 28] No space left on device; finished runs are kept\n"
    )


@pytest.mark.parametrize("user", [0, 1000])
def test_the_laboratory_starts_for_root_as_for_others(tmp_path: Path, user: int) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    said = subprocess.run(
        ["make", "-n", "lab", "-o", "env"],
        cwd=HERE.parent, env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = (line for line in said.stdout.splitlines() if "jupyter lab" in line)
    assert line.endswith("--allow-root") == (user == 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "quik"], "did you mean 'quick'"),
        (["--only", "7"], "only='7': must be the number of a notebook (there are: 01_a, 12_b)"),
        (["--only", "x"], "only='x'"),
    ],
)
def test_bad_arguments_are_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    for name in ("01_a", "12_b", "notes"):
        write(repository / f"notebooks/{name}.ipynb")
    assert command.main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (repository / "reports").exists()


def test_notebooks_in(repository: Path) -> None:
    for name in ("01_a", "12_b", "notes"):
        write(repository / f"notebooks/{name}.ipynb")
    folder = repository / "notebooks"
    assert [p.stem for p in command.notebooks_in(folder)] == ["01_a", "12_b"]
    assert [p.stem for p in command.notebooks_in(folder, "12")] == ["12_b"]
    assert [p.stem for p in command.notebooks_in(folder, "1")] == ["01_a"]
    assert [p.stem for p in command.notebooks_in(folder, "01_a")] == ["01_a"]


def test_damaged_notebook_is_named(repository: Path) -> None:
    path = repository / "notebooks/01_a.ipynb"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"01_a\.ipynb: not a notebook"):
        command.notebook_hash(path, "quick")


def test_artefacts_not_saved_again_are_forgotten(tmp_path: Path) -> None:
    index = {"artefacts": {n: {"kind": "figure", "files": [f"figures/{n}.png"]} for n in ("old", "new")}}
    (tmp_path / "figures").mkdir()
    for name in ("old", "new"):
        (tmp_path / f"figures/{name}.png").write_text("")
    os.utime(tmp_path / "figures/old.png", (1, 1))
    (tmp_path / "01.artefacts.json").write_text(json.dumps(index))
    command._drop_old_artefacts(tmp_path, "01", time.time() - 60)
    assert list(json.loads((tmp_path / "01.artefacts.json").read_text())["artefacts"]) == ["new"]
    assert not (tmp_path / "figures/old.png").exists()
