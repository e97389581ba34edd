"""`make audit`: the versions of the lock files held against an index of advisories in OSV's form; nothing is fetched.

python -m torture.audit FOLDER        a folder of JSON files, one of them, or a zip of them (OSV's all.zip of PyPI)
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCKS = ("requirements.lock", "requirements-uv.lock")


def locked(folder: Path) -> set[tuple[str, Version]]:
    """Names and versions that the lock files pin."""
    lines = [line for name in LOCKS for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    pins = [match for line in lines if (match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line))]
    return {(canonicalize_name(m[1]), Version(m[2])) for m in pins}


def advisories(path: Path) -> Iterator[Mapping[str, Any]]:
    """All advisories at a path; ValueError for what is none."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
    else:
        texts = [p.read_bytes() for p in ([path] if path.is_file() else sorted(path.rglob("*.json")))]
    for text in texts:
        whole = json.loads(text)
        for advisory in whole if isinstance(whole, list) else [whole]:
            if not isinstance(advisory, dict) or "id" not in advisory:
                raise ValueError(f"advisories={str(path)!r}: holds what is no advisory in OSV's form")
            yield advisory


def concerns(affected: Mapping[str, Any], version: Version) -> bool:
    """Whether a version is among those affected: listed, or in a range from `introduced` to before `fixed`."""
    if str(version) in affected.get("versions", ()):
        return True
    for span in affected.get("ranges", ()):
        inside = False
        for event in span.get("events", ()) if span.get("type") == "ECOSYSTEM" else ():
            (kind, text), *_ = event.items()
            try:
                reached = version > Version(text) if kind == "last_affected" else version >= Version(text)
            except InvalidVersion:
                continue
            inside = kind == "introduced" if reached else inside
        if inside:
            return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """A line an advisory that concerns a pin; exit status 1 where there is one, 2 where there is no index."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or not (path := Path(arguments[0])).exists():
        print("audit: no index of advisories; ADVISORIES= a folder, file or zip in OSV's form", file=sys.stderr)
        return 2
    pins, count, found = locked(Path.cwd()), 0, 0
    for advisory in advisories(path):
        count += 1
        for affected in () if advisory.get("withdrawn") else advisory.get("affected", ()):
            name = canonicalize_name(affected.get("package", {}).get("name", ""))
            for version in sorted(v for n, v in pins if n == name and concerns(affected, v)):
                found += 1
                print(f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}".strip())
    print(f"audit: {len(pins)} pins, {count} advisories, {found} concern them")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
