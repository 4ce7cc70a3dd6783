"""What the server of the test processes does once, so that none of them need do it again: load the
compiled passes of the sparse messages."""

from __future__ import annotations

import torch

from tacit.compressors import compressor

for text in ("topk(k=8)", "topk(k=8,values=int8)", "block_topk(k=8,block=32)"):
    for vector in (torch.linspace(-1, 1, 53), torch.zeros(53)):
        made = compressor(text)
        made.decode(made.encode(vector, "step", 1), 53, "nobody", "step", 1)
