"""One thread: small tensors gain nothing from a second one, and results do not depend on the machine's cores."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
