"""`vsmd.check`: a good model passes, each fault is named, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vsmd
from vsmd.data.points import PointSet
from vsmd.model import Model
from vsmd.quality import Check


def draw(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 3.0])


TRAIN, TEST, FRESH = draw(600, 0), draw(400, 1), draw(600, 2)
DATA = PointSet("gaussian", TRAIN, draw(100, 3), TEST, ("a", "b"))


class Fixed(Model):
    """A model whose samples are given."""

    def sample(self, n: int | None = None, *args: Any, **options: Any) -> Tensor:
        return self.samples[:n]  # type: ignore[attr-defined]


def checked(samples: Tensor, beta: float = 10.0, data: Any = DATA, **settings: Any) -> Check:
    process = vsmd.forward_process("CLD", (2,), beta=beta, **settings).with_data(TRAIN)
    model = Fixed(process, torch.nn.Identity())
    object.__setattr__(model, "samples", samples)
    return vsmd.check(model, data, n=len(samples))


def test_a_good_sample_passes() -> None:
    report = checked(FRESH)
    assert report.advice == ("Nothing is wrong that these measures see.",)
    text = str(report)
    assert "AUC of a classifier" in text
    assert text.splitlines()[0].split() == ["samples", "floor"]
    frame = report.frame
    assert list(frame.columns) == ["samples", "floor"]
    assert frame.loc["nearer to training points", "samples"] == pytest.approx(0.5, abs=0.1)
    assert frame.loc["…, widest axis", "samples"] == pytest.approx(1, abs=0.1)
    assert str(checked(FRESH, data=(TRAIN, TEST))) == text


@pytest.mark.parametrize(
    ("samples", "settings", "said"),
    [
        (
            FRESH + torch.tensor([2.0, 0]),
            {},
            r"^The mean is off by [12][.\d]* standard deviations along an axis: train longer",
        ),
        (FRESH * 0.5, {}, r"^An axis is too narrow, 0.\d+ times the data's spread"),
        (FRESH * 2, {}, r"^An axis is too wide, [12][.\d]* times the data's spread: standardise or whiten"),
        (TRAIN.clone(), {}, r"^8\d% of the samples lie nearer to training points .*: train less"),
        (
            FRESH,
            {"beta": 0.5, "prior": "gaussian"},
            r"^The prior misses the data's law at t = 1: prior='gaussian': [.\d]+ from the end .*beta=",
        ),
        (torch.cat([FRESH, torch.full((9, 2), torch.nan)]), {}, r"^9 samples are not finite: take more steps"),
    ],
)
def test_each_fault_is_named(samples: Tensor, settings: dict[str, Any], said: str) -> None:
    report = checked(samples, **settings)
    assert any(re.match(said, sentence) for sentence in report.advice), report.advice


def test_another_prior_is_not_blamed() -> None:
    assert checked(FRESH, beta=0.5, prior="moments").advice == ("Nothing is wrong that these measures see.",)


def test_a_trained_model_and_its_picture(tmp_path: Path) -> None:
    process = vsmd.forward_process("CLD", (2,), beta=5.0, variational_score="steered")
    model = vsmd.fit(process, TRAIN, steps=2, batch_size=32)
    report = vsmd.check(model, DATA, n=200, solver="exponential", steps=5)
    assert len(report.samples) == 200
    figure = report.picture(tmp_path / "samples.png")
    assert len(figure.axes) == 2
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["held-out points", "samples"]
    assert (tmp_path / "samples.png").stat().st_size > 5_000


def test_what_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"^data=Tensor: must be a PointSet, or a pair of training and held-out points$"
    ):
        checked(FRESH, data=TRAIN)
    with pytest.raises(ValueError, match=r"^data: held-out points=\(400, 1\): must be a tensor of shape \(n, 2\)"):
        checked(FRESH, data=(TRAIN, TEST[:, :1]))
    with pytest.raises(ValueError, match=r"^model: 0 of 600 samples are finite; take more steps or another solver$"):
        checked(FRESH * torch.nan)
