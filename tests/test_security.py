"""No evaluated text, no shell, no download without a hash or a reason: what SECURITY says, looked for in the code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_house import MODULES, NOTEBOOKS, ROOT, unpickled
from torture import audit

RUNS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}  # builtins that run what is in a text
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
UNPACKS = {"extractall", "unpack_archive", "mktemp"}  # write where an archive, or whoever guesses, says
FETCHES = {
    "urlopen", "urlretrieve", "load_state_dict_from_url", "download_url", "hf_hub_download", "snapshot_download",
    "load_url",
    "fetch_openml", "materialize_dataset", "get_dataset", "build_feature_extractor", "download_and_extract_archive",
}  # fmt: skip
CLIENTS = {"requests", "httpx", "aiohttp", "urllib3", "ftplib", "paramiko"}


def running(source: str) -> list[int]:
    """Lines that evaluate a text, call a shell, or unpack an archive as it says itself."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        shell = options.get("shell", "False") != "False"
        unpacks = name.rpartition(".")[2] in UNPACKS and options.get("filter") != "'data'"
        unsafe = name in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load"}
        if name in RUNS | SHELLS or unpacks or shell or unsafe:
            lines.append(node.lineno)
    return lines


def fetching(source: str) -> Iterator[str]:
    """Names of what fetches from elsewhere: `CIFAR10` with download, GluonTS and clean-fid, any client."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from sorted({name.split(".")[0] for name in names} & CLIENTS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            local = options.get("local_files_only") == "True"
            if name in FETCHES or options.get("download") == "True" or (name == "from_pretrained" and not local):
                yield name


def cells(path: Path) -> str:
    """The code of a notebook; lines of magic are left out."""
    code = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    lines = "\n".join("".join(c["source"]) for c in code).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


SOURCES = {str(path.relative_to(ROOT)): path for path in [*MODULES, *NOTEBOOKS]}


def code(name: str) -> str:
    path = SOURCES[name]
    return cells(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_evaluated_and_no_shell_is_called(name: str) -> None:
    assert running(code(name)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_unpickle_nothing(path: Path) -> None:
    assert unpickled(cells(path)) == []
    assert not re.search(r"(?m)^\s*!", "".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"]))


def test_what_is_fetched_is_listed_with_its_hash_or_the_reason() -> None:
    """Every call that fetches has its line in SECURITY.md, with a hash or the word for why there is none."""
    fetched = {name for source in SOURCES for name in fetching(code(source))}
    rows = [line.split("|") for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    listed = {match[1]: row for row in rows if (match := re.match(r" `(\w+)`", row[1]))}
    assert fetched == {name for name in listed if name not in {"make", "uv"}}
    assert all(re.search(r"[0-9a-f]{32}|no hash|digest", "|".join(row)) for row in listed.values())


@pytest.mark.parametrize("line", [
    "eval(text)", "exec(text)", "x = __import__(name)", "os.system('ls')", "subprocess.run('ls', shell=True)",
    "subprocess.run(command, shell=wanted)", "archive.extractall(folder)", "shutil.unpack_archive(path)",
    "yaml.load(text)",
    "torch.jit.load(path)", "tempfile.mktemp()", "subprocess.getoutput('ls')",
])  # fmt: skip
def test_running_is_seen(line: str) -> None:
    fine = "model.eval()\nre.compile(text)\nsubprocess.run(['ls'], shell=False)\ntar.extractall(to, filter='data')\n"
    assert running(fine + line) == [5]


@pytest.mark.parametrize("line", [
    "urllib.request.urlopen(url)", "import requests", "from httpx import get", "CIFAR10(folder, download=True)",
    "AutoencoderKL.from_pretrained(name)", "torch.hub.load_state_dict_from_url(url)",
])  # fmt: skip
def test_fetching_is_seen(line: str) -> None:
    assert len(list(fetching(f"AutoencoderKL.from_pretrained(path, local_files_only=True)\n{line}"))) == 1


def test_the_lock_is_held_against_advisories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Affected by a range, by a list, not any more, withdrawn; without an index one line says so."""
    (tmp_path / "requirements.lock").write_text("one==1.5 \\\n    --hash=sha256:0\ntwo==2.0\nthree==3.0\n")
    (tmp_path / "requirements-uv.lock").write_text("four==4.0\n")
    monkeypatch.chdir(tmp_path)

    def advisory(name: str, number: int, **more: object) -> str:
        spans = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": f"{number}.5.1"}]}]
        affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": spans}
        return json.dumps({"id": f"ID-{name}", "affected": [affected], **more})

    index = tmp_path / "index"
    index.mkdir()
    (index / "a.json").write_text(advisory("One", 1))
    (index / "b.json").write_text(advisory("two", 1))
    (index / "c.json").write_text(advisory("three", 3, withdrawn="2026-01-01"))
    (index / "d.json").write_text(
        json.dumps({"id": "X", "affected": [{"package": {"name": "four"}, "versions": ["4.0"]}]})
    )
    assert audit.main([str(index)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "one 1.5: ID-One", "four 4.0: X", "audit: 4 pins, 4 advisories, 2 concern them",
    ]  # fmt: skip
    assert audit.main([str(index / "b.json")]) == 0
    assert audit.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1
