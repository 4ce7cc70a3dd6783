"""Settings for all tests: one thread (the same bits on every machine), and fixed examples."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile(
    "tacit", deadline=None, derandomize=True, database=None, max_examples=50, print_blob=True
)
settings.load_profile("tacit")
