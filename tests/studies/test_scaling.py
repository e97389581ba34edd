"""repro.studies.scaling: rows as declared, fitted exponents, words counted, a model whose limits are known."""

from __future__ import annotations

import pytest

from repro.studies import scaling


@pytest.mark.parametrize(("basis", "dims", "timed"), [("coordinates", [2, 5], 3), ("principal", [4], 4),
                                                      ("cosine", [48], 4)])  # fmt: skip
def test_rows(basis: str, dims: list[int], timed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "FITTED", 2)
    tables = scaling.run(basis, dims, rounds=1).tables
    rows = tables["scaling"]
    assert all(list(row) == ["what", "basis", "d", "seconds", "bytes"] for row in rows)
    assert len(rows) == (timed + 1) * len(dims)
    assert all((row["seconds"] is None) == (row["what"] == "memory") for row in rows)
    words = [row["value"] for row in tables["scaling_fits"] if row["quantity"] == "words a direction"]
    axes = {"coordinates": 0, "principal": 4, "cosine": 9 / 48}[basis]
    assert words == [11 + axes]  # s, c, mean, variance; mean map 4, noise 3; and the axes
    exponents = [row for row in tables["scaling_fits"] if row["quantity"] == "exponent"]
    assert len(exponents) == (timed if len(dims) > 1 else 0)


def test_exponent() -> None:
    points = [(10, 1.0), *((d, 1e-6 * d**1.5) for d in (1_000, 10_000, 100_000))]
    assert scaling.exponent(points) == pytest.approx(1.5)
    assert scaling.exponent(points[:2]) is None


def test_bytes_of_an_all_reduce() -> None:
    """Every parameter of the network once, in float32."""
    import vsmd.images

    (row,) = scaling.exchanged("cifar10-small").tables["scaling"]
    network = vsmd.images.config("cifar10-small").build((3, 32, 32), 0)
    assert row["bytes"] == 4 * sum(p.numel() for p in network.parameters())


def test_the_model_of_many_devices() -> None:
    """One device is what was measured; many share what the ring takes."""
    rate, efficiency = scaling.predicted(1_000, 64, 10**8, 1, 25e9)
    assert rate == pytest.approx(1_000)
    assert efficiency == pytest.approx(1.0)
    eight, share = scaling.predicted(1_000, 64, 10**8, 8, 25e9, latency=1e-9)
    assert share == pytest.approx(0.064 / (0.064 + 14 / 8 * 4e-3), rel=1e-4)
    assert eight == pytest.approx(8_000 * share)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^basis='diagonal': must be one of"):
        scaling.run("diagonal", [2])
    with pytest.raises(ValueError, match=r"^d=50: must be 3 s\^2"):
        scaling.run("cosine", [50])
    with pytest.raises(ValueError, match=r"^d=10000000: needs about .* GB of memory, .* GB are free"):
        scaling.run("principal", [10_000_000])
    with pytest.raises(ValueError, match=r"^what='A': must be one of"):
        scaling.shares("A")
    with pytest.raises(ValueError, match=r"^bandwidth=0"):
        scaling.predicted(1, 1, 1, 1, 0)
