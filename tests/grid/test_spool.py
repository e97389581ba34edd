"""What a run hands back, the spool that it lies in, and rows of another machine brought home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gridtools import lines, stops_at

from repro.grid import Result, Run, Status, Store, execute, merge, pool, product, worker
from repro.grid.merge import results_in
from repro.grid.spool import Finished

pytestmark = pytest.mark.usefixtures("own_pool")

PROVENANCE = {"date": "2025-01-01T00:00:00Z", "seconds": 1.0, "commit": "c0ffee", "device": "CPU", "torch": "2"}
RUNS = product("m:f", seed=[0, 1, 2])


def finished(run: Run, value: float = 1.5, profile: str = "quick", code: dict[str, str] | None = None) -> Finished:
    seed = run.config["seed"]
    tables = {"a": [{"seed": seed, "v": value, "w_seconds": seed + 0.1}], "b": [{"v": "x, é"}, {"v": "x, é"}], "c": []}
    result = Result(tables, {f"p{seed}": np.full((2, 2), value)})
    return Finished.of(run, result, profile=profile, code=code or {}, provenance=PROVENANCE)


def files(root: Path) -> dict[str, bytes]:
    """What a store has written, its cache aside."""
    names = sorted(p for p in root.rglob("*") if p.is_file() and ".cache" not in p.parts)
    return {str(p.relative_to(root)): p.read_bytes() for p in names}


def spooled(folder: Path, *results: Finished) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        (folder / f"{result.run.key}.json").write_text(result.text())
    return folder


# -- one result -------------------------------------------------------------------------------------------------------
def test_a_result_through_its_file_is_stored_to_the_same_bytes(tmp_path: Path) -> None:
    for result in map(finished, RUNS):
        Store(tmp_path / "1").add(result)
        again = Finished.read(result.text(), "x.json")
        assert again == result
        Store(tmp_path / "2").add(again)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert "points/p2.csv.gz" in files(tmp_path / "1")
    stored = [result for result in Store(tmp_path / "1").finished() if isinstance(result, Finished)]
    assert {r.run: r.rows for r in stored} == {r.run: r.rows for r in map(finished, RUNS)}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    whole = json.loads(finished(RUNS[0]).text())
    change(whole)
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "kind"),
        (changed(lambda w: w.pop("rows")), "'rows' is missing"),
        (changed(lambda w: w["entry"].pop("code")), "'code' is missing"),
        (changed(lambda w: w["entry"].update(function="__main__:f")), "notebook"),
        (changed(lambda w: w["rows"].update({"../a": []})), "tables="),
        (changed(lambda w: w["points"].update({"../../p": ""})), "points="),
        (changed(lambda w: w["points"].update(p0="AAAA")), "points='p0'"),
        (changed(lambda w: w["rows"]["a"].append({"v": 1})), "a: {'v': 1}"),
        (changed(lambda w: w["rows"]["a"].append({"u": "1"})), "a: {'u': '1'}"),
        (changed(lambda w: w["rows"]["a"].append({"v": "1\n2"})), "a: {'v': '1\\n2'}"),
        (changed(lambda w: w["entry"].update(code=["m"])), "code"),
    ],
)
def test_what_is_no_result_is_refused_by_name_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^x\.json: not the result of a run \(") as caught:
        Finished.read(text, "x.json")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_leave_the_store_are_refused() -> None:
    def rename(whole: dict[str, Any]) -> None:
        whole["points"] = {"../../p": whole["points"]["p0"]}
        whole["entry"]["points"] = ["../../p"]

    with pytest.raises(ValueError, match=r"points='\.\./\.\./p'"):
        Finished.read(changed(rename), "x.json")


# -- the spool --------------------------------------------------------------------------------------------------------
def test_a_worker_leaves_a_file_and_no_row(tmp_path: Path) -> None:
    run = Run("tinyruns:run", {"method": "CLD", "seed": 3})
    order = {"function": run.function, "config": dict(run.config), "root": str(tmp_path / "r"), "profile": "quick"}
    worker.work({**order, "commit": "c0ffee", "spool": str(tmp_path / "spool.json")})
    result = Finished.read((tmp_path / "spool.json").read_text(), "spool.json")
    assert (result.run, result.entry["profile"], list(result.points)) == (run, "quick", ["CLD-3"])
    assert "tinyruns" in result.entry["code"]
    assert not (tmp_path / "r/tables").exists()


def test_what_a_killed_driver_left_is_stored_and_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, log = Store(tmp_path / "r", "quick"), tmp_path / "log"
    [run] = product("tinyruns:run", method="CLD", seed=0, log=str(log))
    path = pool.spool(store, run.key)
    other = pool.spool(store, "ab" * 8)
    order = {"function": run.function, "config": dict(run.config), "root": str(store.root), "profile": "quick"}
    worker.work({**order, "commit": "c0ffee", "spool": str(path)})
    other.write_text("{")
    assert execute([run], store, progress=False) == Status(1, 0, 0)
    assert lines(log) == ["CLD-0"]
    assert not path.exists()
    assert "not the result of a run" in capsys.readouterr().out
    assert other.with_suffix(".damaged").exists()
    assert execute([run], store, progress=False) == Status(1, 0, 0)
    assert capsys.readouterr().out == ""


def test_a_result_of_other_code_in_the_spool_does_not_replace_a_fresh_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "r", "quick")
    store.add(finished(RUNS[0], 1.0))
    spooled(store.cache / "spool", *(finished(run, 2.0, code={"repro.grid.runs": "0" * 12}) for run in RUNS[:2]))
    pool.left_over(store)
    assert store.table("a")["v"].tolist() == [1.0, 2.0]
    assert store.status(RUNS) == Status(1, 1, 1)
    assert not list((store.cache / "spool").iterdir())


# -- merge ------------------------------------------------------------------------------------------------------------
def test_rows_of_another_machine_come_home_to_the_same_bytes(tmp_path: Path) -> None:
    whole, there, home = (Store(tmp_path / name, "quick") for name in ("whole", "there", "home"))
    whole.add(*map(finished, RUNS))
    there.add(finished(RUNS[0]))
    home.add(finished(RUNS[2]))
    for store in (whole, there):
        store.amend({RUNS[0].key: {"verified": {"against": "c0ffee"}}})
    spooled(there.cache / "spool", finished(RUNS[1]))
    merged = merge.merge(home, results_in(there.root, "quick"))
    assert (len(merged.brought), merged.there, merged.refused) == (2, 0, {})
    assert files(home.root) == files(whole.root)
    before = files(home.root)
    merged = merge.merge(home, results_in(there.root, "quick"))
    assert (len(merged.brought), merged.there, merged.unlike, merged.refused) == (0, 2, 0, {})
    assert files(home.root) == before


def test_what_home_has_stays_and_other_figures_are_counted(tmp_path: Path) -> None:
    home = Store(tmp_path / "home", "quick")
    home.add(finished(RUNS[0], 1.0), finished(RUNS[1], 1.0, code={"repro.grid.runs": "0" * 12}))
    assert home.status(RUNS) == Status(1, 1, 1)
    merged = merge.merge(home, results_in(spooled(tmp_path / "s", *(finished(run, 2.0) for run in RUNS)), "quick"))
    assert (len(merged.brought), merged.there, merged.unlike) == (2, 1, 1)  # a stale one and one that was missing
    assert home.table("a")["v"].tolist() == [1.0, 2.0, 2.0]
    assert home.status(RUNS) == Status(3, 0, 0)


def test_other_code_other_profiles_and_damage_are_named_and_the_rest_comes(tmp_path: Path) -> None:
    there, home = Store(tmp_path / "there", "quick"), Store(tmp_path / "home", "quick")
    there.add(finished(RUNS[0]), finished(RUNS[1], code={"repro.grid.runs": "0" * 12}), finished(RUNS[2]))
    path = there.tables_dir / "a.csv"
    path.write_text(path.read_text().replace("2,1.5", "2,1.4"))
    folder = spooled(there.cache / "spool", finished(Run("m:f", {"seed": 7}), profile="full"))
    (folder / f"{'0' * 16}.json").write_text("{}")
    merged = merge.merge(home, results_in(there.root, "quick"))
    assert [r.run for r in merged.brought] == [RUNS[0]]
    said = "\n".join(merged.refused)
    assert "made at c0ffee by other code (repro.grid.runs)" in said
    assert "of profile 'full', not 'quick'" in said
    assert 'm:f{"seed":2}: its rows were edited, or its points are gone' in said
    assert f"{'0' * 16}.json: not the result of a run" in said
    assert len(merged.refused) == 4
    merged = merge.merge(home, results_in(there.root, "quick"), stale=True)
    assert home.status(RUNS) == Status(1, 1, 1)


def test_a_merge_killed_at_any_move_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real, seen = spooled(tmp_path / "s", *map(finished, RUNS)), os.replace, set[int]()
    for n in range(40):
        store = Store(tmp_path / str(n), "quick")
        monkeypatch.setattr(os, "replace", stops_at(n))
        stopped = True
        try:
            merge.merge(store, results_in(folder, "quick"))
            stopped = False
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(os, "replace", real)
        seen.add(Store(store.root, "quick").status(RUNS).fresh)
        assert len(merge.merge(store, results_in(folder, "quick")).brought) in (0, 3)
        assert store.status(RUNS) == Status(3, 0, 0)
        if not stopped:
            break
    assert not stopped
    assert seen == {0, 3}


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    folder = spooled(tmp_path / "s", finished(RUNS[0]), finished(RUNS[1], code={"repro.grid.runs": "0" * 12}))
    environment = {**os.environ, "VSMD_REPORTS": str(tmp_path / "reports")}

    def command(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "repro", "merge", *words], env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    status, said = command(str(folder))
    assert status == 1
    assert "1 run(s) merged into " in said
    assert "1 of them made at c0ffee" in said
    assert "1 refused: made at c0ffee by other code (repro.grid.runs)" in said
    status, said = command(str(tmp_path / "nothing"))
    assert (status, said.count("\n")) == (2, 1)
    assert "must hold tables/ of a report or files of finished runs" in said


def test_nested_without_end() -> None:
    with pytest.raises(ValueError, match=r"^x\.json: not the result of a run \([^\n]*\)$"):
        Finished.read("[" * 10**5, "x.json")
