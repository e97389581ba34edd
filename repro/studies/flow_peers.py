r"""Flow matching as its own library has it: torchcfm's matchers in the loop that trains ours (`flow_matching`).

    I-CFM   x_t = (1 - t) x_0 + t x_1, target x_1 - x_0, pairs independent
    OT-CFM  the same, pairs drawn with replacement from the exact plan of a minibatch
    SB-CFM  x_t + sigma sqrt(t (1 - t)) n of such pairs, target x_1 - x_0 + (1 - 2t)/(2 t (1 - t)) (x_t - mean)

Same network, batches, times, steps, optimiser and average; minibatches of `PLAN` rows get a plan each, as ours do.
torchcfm is an extra of its own ("peers"): what its data sets and examples need besides is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.studies import toys
from repro.studies.flow_matching import AS_FIT, PLAN, SCALINGS, Flow, FlowTrainer, advanced, level_of
from vsmd import checks, random
from vsmd.training.data import Data
from vsmd.training.pairs import Pairs

NAMES = ("I-CFM", "OT-CFM", "SB-CFM")
METHODS = {name + scaling: (name, scaling) for name in NAMES for scaling in SCALINGS}
SIGMA = 0.5  # of SB-CFM's Brownian bridges, in the units of the source
CLEAR = 1e-3  # of SB-CFM's times, whose target grows without bound towards either end


def installed() -> bool:
    """Whether torchcfm is there."""
    return find_spec("torchcfm") is not None


def matcher_of(name: str, sigma: float = SIGMA) -> Any:
    """torchcfm's matcher of one of `NAMES`; ModuleNotFoundError, saying what to install, if it is missing."""
    checks.one_of("name", name, NAMES)
    if not installed():
        raise ModuleNotFoundError("torchcfm: not installed; it is in the extra `peers`: pip install 'vsmd[peers]'")
    from torchcfm import conditional_flow_matching as library

    if name == "I-CFM":
        return library.ConditionalFlowMatcher(0.0)
    if name == "OT-CFM":
        return library.ExactOptimalTransportConditionalFlowMatcher(0.0)
    return library.SchrodingerBridgeConditionalFlowMatcher(sigma, ot_method="exact")


class PeerTrainer(FlowTrainer):
    """`FlowTrainer` with the library's pairs in place of ours."""

    def __init__(self, method: str, data: Data, shape: tuple[int, ...], **settings: Any) -> None:
        self.name, scaling = METHODS[checks.one_of("method", method, METHODS)]
        self.matcher = matcher_of(self.name)
        super().__init__("i-cfm" + scaling, data, shape, "gaussian", **settings)

    def pairs(self) -> Pairs:
        """The library's points, times and targets; times stratified over the batch, as ours are."""
        (x, _), stream = self.batch()
        x1, x0 = self.start.scale(x), self.start.start(len(x), stream)
        t = (torch.arange(len(x)) + torch.rand(len(x), generator=stream)) / len(x)
        if self.name == "SB-CFM":
            t = CLEAR + (1 - 2 * CLEAR) * t
        at, target = torch.empty_like(x1), torch.empty_like(x1)
        groups = -(-len(x) // PLAN)
        for rows in (slice(g, None, groups) for g in range(groups)):
            at[rows], target[rows] = self._matched(x0[rows], x1[rows], t[rows], stream)
        return Pairs(at, level_of(t, self.process.shape), target, torch.ones(()).expand_as(x1), None)

    def _matched(self, x0: Tensor, x1: Tensor, t: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points and targets of a minibatch; the library draws from the global generators, which are left as found."""
        seed = int(torch.randint(2**31, (1,), generator=stream))
        state = np.random.get_state()  # noqa: NPY002 - the library's own
        with random.first_weights(torch.Generator().manual_seed(seed)):
            np.random.seed(seed)  # noqa: NPY002
            _, at, target = self.matcher.sample_location_and_conditional_flow(x0, x1, t)
        np.random.set_state(state)  # noqa: NPY002
        return at, target


def train(
    method: str,
    data: Data,
    shape: tuple[int, ...],
    *,
    steps: int = 6_000,
    batch_size: int = 1_024,
    learning_rate: float = toys.LEARNING_RATE,
    network: nn.Module | None = None,
    seed: int = 0,
) -> Flow:
    """Train one of `METHODS`; arguments as of `flow_matching.train`, sampling as there."""
    trainer = PeerTrainer(
        method, data, shape, network=network, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
        seed=seed, **AS_FIT,
    )  # fmt: skip
    advanced(trainer, method)
    return trainer.flow()
