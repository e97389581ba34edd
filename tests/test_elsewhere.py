"""Files for other machines: workflow, container, hub. They cannot run here; they parse, and say what `.ci/run` says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, flags=re.MULTILINE))


def workflow() -> dict[Any, Any]:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def made(text: str) -> set[str]:
    """The targets of `make` that a text calls, help in brackets aside."""
    return set(re.findall(r"(?:^|[\s`'!])make ([a-z]+)", text))


def test_the_workflow_runs_what_ci_runs() -> None:
    """One job, on the Pythons of the lock, that calls `.ci/run` itself; only commands that exist."""
    (job,) = workflow()["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0] == "bash .ci/run"
    assert set().union(*map(made, commands)) <= TARGETS
    assert job["timeout-minutes"] <= 90
    versions = job["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) and tuple(map(int, version.split("."))) >= (3, 11) for version in versions)
    assert workflow()["permissions"] == {"contents": "read"}
    assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)


def test_ci_covers_lint_tests_smoke_and_book() -> None:
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert made(text) == {"lint", "test", "reproduce", "book"}
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci/run")]).returncode == 0


def test_the_container_makes_the_same_environment() -> None:
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert settings["postCreateCommand"] == "make env"
    assert settings["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        "/.venv/bin/python"
    )


def test_the_hub_installs_the_lock_and_links_both_packages() -> None:
    lines = (ROOT / ".binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-r ../requirements.lock"]
    post = ROOT / ".binder/postBuild"
    assert os.access(post, os.X_OK)
    assert subprocess.run(["bash", "-n", str(post)]).returncode == 0
    (ours,) = (line for line in post.read_text(encoding="utf-8").splitlines() if "pip install" in line)
    (theirs,) = (line for line in MAKEFILE.splitlines() if "--editable . --editable ./repro" in line)
    assert ours.split("pip install")[1].split() == theirs.split("--python $(PY)")[1].split()
    assert (ROOT / ".binder/runtime.txt").read_text(encoding="utf-8").split() == ["python-3.11"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md")), ids=lambda p: p.stem)
def test_templates_ask_for_what_reproduces(path: Path) -> None:
    _, head, text = path.read_text(encoding="utf-8").split("---\n", 2)
    assert {"name", "about", "labels"} <= set(yaml.safe_load(head))
    if path.stem in ("fault", "figure"):
        assert "**Where**" in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/start/install.md"])
def test_the_words_call_targets_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    called = set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE))
    assert called
    assert called <= TARGETS


@pytest.mark.parametrize("path", sorted((ROOT / "tests/browser").glob("*.mjs")), ids=lambda p: p.stem)
def test_the_browser_scripts_parse(path: Path) -> None:
    """They need a browser, which not every machine has; CONTRIBUTING names those that are run."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node")
    done = subprocess.run([node, "--check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if path.stem != "watch":
        assert f"node tests/browser/{path.name}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
