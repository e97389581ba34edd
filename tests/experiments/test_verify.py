"""After a change of code: what gives the same rows is carried over, what does not stays stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsmd import experiments
from vsmd.experiments import Store, verify
from vsmd.experiments.pool import execute

BODY = """from pathlib import Path
from vsmd.experiments import Result
from .maths import f


def run(method, seed, log):
    with Path(log).open("a") as file:
        file.write(f"{method}-{seed}\\n")
    return Result({"t": [{"method": method, "seed": seed, "v": f(method, seed), "own_seconds": FACTOR}]})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "verified"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "maths.py").write_text("def f(method, seed):\n    return seed + len(method)\n")
    (folder / "toy.py").write_text(BODY.replace("FACTOR", "1.0"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VSMD_SLOTS", str(tmp_path / "slots"))
    return folder


def test_a_harmless_change_is_carried_over_and_a_change_of_figures_is_not(package: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    runs = experiments.grid("verified.toy:run", method=["CLD", "VSULD"], seed=[0, 1, 2], log=str(log))
    execute(runs, store, progress=False)
    before, log_before = (store.tables_dir / "t.csv").read_bytes(), len(log.read_text().splitlines())
    # rounding is done elsewhere now; one method's figures move
    (package / "maths.py").write_text(
        "def f(method, seed):\n    value = len(method) + seed\n    return value + (method == 'VSULD')\n"
    )
    (package / "toy.py").write_text(BODY.replace("FACTOR", "2.0"))  # a timing column may differ
    assert store.status(runs).stale == 6
    found = verify.verify(store, progress=False)
    assert len(log.read_text().splitlines()) - log_before == 2  # one run of each method
    assert (len(found["same"]), len(found["different"])) == (3, 3)
    states = store.states(runs)
    assert [states[r.key] for r in runs] == ["fresh"] * 3 + ["stale"] * 3
    assert (store.tables_dir / "t.csv").read_bytes() == before
    assert store.provenance("t")["verified"] == 3
    notes = {entry["verified"]["run"] for entry in store.entries().values() if "verified" in entry}
    assert len(notes) == 1
    assert notes <= {r.key for r in runs[:3]}


def test_nothing_stale_runs_nothing(package: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    runs = experiments.grid("verified.toy:run", method="CLD", seed=0, log=str(log))
    execute(runs, store, progress=False)
    assert verify.verify(store, progress=False) == {"same": [], "different": []}
    assert log.read_text().splitlines() == ["CLD-0"]
    assert not (store.cache / "verify" / "tables").exists()


def test_unknown_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--profile", "ful"]) == 2
    assert capsys.readouterr().err.startswith("profile='ful'")
