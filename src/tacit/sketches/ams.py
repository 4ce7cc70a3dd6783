"""The AMS sketch ("tug of war") of a vector: a small linear map that keeps its squared norm.

A sketch is ``l`` rows of ``m`` columns. Row ``j`` adds ``sign_j(i) * v[i]`` to column
``bucket_j(i)``; see ``hashing`` for the functions and the proof of their independence. The squared
norm of ``v`` is estimated by the median over rows of the squared norm of a row.

Sources: Alon, Matias and Szegedy, "The space complexity of approximating the frequency moments",
STOC 1996 (signs, energy, medians); Charikar, Chen and Farach-Colton, "Finding frequent items in
data streams", ICALP 2002 (one bucket per row: the count sketch); Theologitis et al., EDBT 2025,
for its use in deciding when workers synchronise, with l = 5 and m = 250.

**Bound.** With 4-wise independent signs, and buckets that collide with probability at most
``1/m + 1/p`` where ``p = 2^31 - 1``, the energy of a row has mean ``||v||^2`` exactly and variance
``2 sum_{i != i'} v_i^2 v_i'^2 P(bucket(i) = bucket(i')) <= 2 (1/m + 1/p) ||v||^4``. By Chebyshev it
is off by more than ``eps ||v||^2`` with probability ``f <= 2 (1/m + 1/p) / eps^2``, and the median
of ``l`` independent rows only if ``(l + 1)/2`` of them are: P <= P(Binomial(l, f) >= (l + 1)/2).
With ``m >= 8/eps^2`` (f <= 1/4) that is 0.104, 0.071, 0.049 for l = 5, 7, 9.

The published factor ``eps = 1/sqrt(m)`` is smaller than what this proves anything about (f <= 2):
at l = 5, m = 250 the estimate exceeds ``(1 + eps) ||v||^2`` in 8-9 % of draws of the hash
functions, with these or with any other proper ones (measured on Gaussian vectors; less often where
a few entries carry the norm).

**Memory**: about ``5 l d / m`` bytes of hash tables (1.0 MB at d = 10^7, l = 5, m = 250), twice
that once used on a GPU (tables there and here); a sketch is ``4 l m`` bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.sketches._compiled import compiled
from tacit.sketches.hashing import BlockHash, walsh_signs

# Elements hashed at a time by the plain version: temporaries of this size stay in cache on a CPU;
# a GPU wants few, large launches.
_CPU_CHUNK = 1 << 16
_GPU_CHUNK = 1 << 22


class AMSSketch:
    """The sketch of vectors of ``d`` numbers with the hash functions of ``seed``.

    Equal arguments give the same map in every process, so the mean of the workers' sketches is the
    sketch of their mean, up to float32 rounding. ``rows`` must be odd. ``kernel``: None runs the
    compiled pass (extra ``speed``) on float32 CPU rows and plain torch elsewhere; False always
    plain torch; True insists on the compiled pass. Each repeats itself bit for bit on a CPU; the
    two agree up to rounding. Raises ``UserError`` on bad arguments.
    """

    def __init__(
        self,
        d: int,
        rows: int = 5,
        columns: int = 250,
        seed: int = 0,
        *,
        kernel: bool | None = None,
    ) -> None:
        if rows < 1 or rows % 2 == 0:
            raise UserError(f"a sketch needs an odd number of rows for its median, not {rows}")
        self.hashing = BlockHash(d, rows, columns, seed)
        self.d, self.rows, self.columns, self.seed = d, rows, columns, seed
        self.kernel = kernel
        self._tables: object = None
        self._plain: dict[torch.device, _PlainTables] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a sketch: ``(rows, columns)``."""
        return self.rows, self.columns

    def __call__(self, vector: Tensor) -> Tensor:
        """The sketch of ``vector``, of shape ``(d,)``: ``(rows, columns)`` float32."""
        if vector.ndim != 1:
            raise UserError(f"a sketch takes a flat vector, not shape {tuple(vector.shape)}")
        return self.many(vector[None])[0]

    def many(self, vectors: Tensor) -> Tensor:
        """The sketch of each row of ``(L, d)``: ``(L, rows, columns)`` float32.

        Rows may be strided. Each result is the one that ``__call__`` gives for that row alone.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.d:
            raise UserError(
                f"this sketch takes vectors of {self.d} numbers, not shape {tuple(vectors.shape)}"
            )
        vectors = vectors.detach()
        module = compiled(self.kernel, vectors)
        if module is not None:
            if self._tables is None:
                self._tables = module.SketchTables(self.hashing)
            result: Tensor = module.sketch(self._tables, vectors)
            return result
        if vectors.device not in self._plain:
            self._plain[vectors.device] = _PlainTables(self.hashing, vectors.device)
        tables = self._plain[vectors.device]
        out = vectors.new_empty((len(vectors), *self.shape), dtype=torch.float32)
        for row, vector in zip(out, vectors, strict=True):
            row.copy_(tables.sketch(vector))
        return out


def squared_norm(sketch: Tensor) -> Tensor:
    """The estimate of ``||v||^2`` from ``sketch``, of shape ``(..., rows, columns)``: the median
    over rows of the row energies, ``(...)`` float64. Raises ``UserError`` for an even row count.

    The sketch is linear: to estimate the squared norm of a mean, take the mean of the sketches
    first.
    """
    if sketch.ndim < 2 or sketch.shape[-2] % 2 == 0:
        raise UserError(
            f"a sketch has shape (..., rows, columns) with odd rows, not {tuple(sketch.shape)}"
        )
    return sketch.double().square().sum(-1).median(-1).values


class _PlainTables:
    """A ``BlockHash`` on a device, and the sketch in plain torch."""

    def __init__(self, hashing: BlockHash, device: torch.device) -> None:
        self.hashing = hashing
        self.rotation = torch.from_numpy(hashing.rotation).to(device)
        self.walsh = torch.from_numpy(hashing.walsh).to(device)
        self.flip = torch.from_numpy(hashing.flip).to(device)
        self.pattern = torch.from_numpy(hashing.pattern).to(device, torch.float32)
        # A Walsh sign is the product of the sign of the low and that of the high half of the bits.
        self.low_bits = (hashing.bits + 1) // 2
        self.low = torch.from_numpy(walsh_signs(1 << self.low_bits)).to(device)
        high = walsh_signs(1 << (hashing.bits - self.low_bits))
        self.high = torch.from_numpy(high).to(device)

    def sketch(self, vector: Tensor) -> Tensor:
        """``(d,)`` to ``(rows, columns)`` float64."""
        h = self.hashing
        m = h.columns
        chunk = max(1, (_CPU_CHUNK if vector.device.type == "cpu" else _GPU_CHUNK) // m)
        # Row a is a, a+1, ..., m-1, 0, ..., a-1: a view of 2 m numbers.
        turned = torch.arange(m, device=vector.device).repeat(2).unfold(0, m, 1)
        total = torch.zeros((h.rows, m), dtype=torch.float64, device=vector.device)
        for first in range(0, h.blocks, chunk):
            blocks = slice(first, min(first + chunk, h.blocks))
            flat = vector[first * m : blocks.stop * m].float()
            missing = (blocks.stop - first) * m - len(flat)
            block = torch.nn.functional.pad(flat, (0, missing)).view(-1, m)
            for j in range(h.rows):
                signed = block * self.pattern[j] * self.signs(blocks, j)
                # Column c of the sketch takes place c - a_q of block q. Gathering instead of
                # scattering keeps the order of additions, hence every bit, the same on each run.
                source = turned.index_select(0, m - self.rotation[blocks, j].int())
                total[j] += signed.gather(1, source).sum(0)
        return total

    def signs(self, blocks: slice, j: int) -> Tensor:
        """``flip_q * (-1)^popcount(w_q & r)``: ``(n, m)`` float32 for ``n`` blocks."""
        word = self.walsh[blocks, j].int()
        low = self.low[word & ((1 << self.low_bits) - 1)]
        high = self.high[word >> self.low_bits] * self.flip[blocks, j, None]
        return (high[:, :, None] * low[:, None, :]).flatten(1)[:, : self.hashing.columns]
