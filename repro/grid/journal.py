"""Several files replaced as one: all of them or none, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from vsmd.files import write_atomic


class Journal:
    """Changes of files under `root`, prepared under `folder`; to be used under a lock."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.ready, self.new = root, folder / "journal", folder / "journal.new"

    def commit(self, files: Mapping[Path, bytes]) -> None:
        """Prepare new contents by path, make them the journal in one move, then put them in place (`finish`)."""
        shutil.rmtree(self.new, ignore_errors=True)
        for i, (path, content) in enumerate(files.items()):
            write_atomic(self.new / f"{i}", content)
            write_atomic(self.new / f"{i}.to", path.relative_to(self.root).as_posix())
        if files:
            os.replace(self.new, self.ready)
            self.finish()

    def finish(self) -> None:
        """Put in place what a journal holds, that of a killed process too; nothing where there is none."""
        for to in sorted(self.ready.glob("*.to")):
            target, source = self.root / to.read_text(), to.with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                os.replace(source, target)
        shutil.rmtree(self.ready, ignore_errors=True)
