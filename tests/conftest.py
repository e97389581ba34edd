"""One thread: small tensors gain nothing from a second one, and results do not depend on the machine's cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def own_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of our own for tests of grids: other work on this machine must not hold them up, nor settings count."""
    monkeypatch.setenv("VSMD_SLOTS", str(tmp_path / "slots"))
    for name in ("REFRESH", "VSMD_SCHEDULER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
