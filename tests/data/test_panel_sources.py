"""Named panels: what the shipped one is, and one of one's own."""

from __future__ import annotations

import pytest
from panelfiles import series

from vsmd.data import panel_sources
from vsmd.data.panels import Panel


def test_ecb_rates_are_what_they_are_said_to_be() -> None:
    panel = panel_sources.ecb_rates()
    assert panel.values.shape == (17, 7_126)
    assert panel.times is not None
    assert [str(t)[:10] for t in panel.times[[0, -1]]] == ["1999-01-04", "2026-10-30"]
    assert panel.names[:2] == ("USD", "JPY")
    assert panel.values[:2, 0].tolist() == [1.1789, 133.73]  # first fixing of the euro
    assert (panel.first, panel.ends[-1]) == (7_126 - 150, 7_126 - 30)


def test_a_panel_from_outside_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Panel("mine", "D", "2020-01-01", series(), ("a", "b", "c"), prediction_length=4, windows=2)
    with pytest.raises(ValueError, match=r"^panel='mine': must be one of"):
        panel_sources.panel("mine")
    monkeypatch.setitem(panel_sources.PANELS, "mine", lambda: mine)
    assert panel_sources.panel("mine") is mine


def test_unknown_panel() -> None:
    with pytest.raises(ValueError, match="did you mean 'ecb_rates'"):
        panel_sources.panel("ecb_rate")
