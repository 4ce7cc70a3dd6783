"""The rows of a matrix in the hands of n clients: sums and eigenvalues client by client."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from tacit.errors import UserError


class Clients:
    """Rows dealt in file order: m // n to each client, and the remainder to the last one too.

    matrix, targets: (m, d) and (m,), kept as float64. ``sizes``: the m_i, (n,). ``weights``: (m,)
    that turn sums over rows into the mean over clients of their means, 1 / (n m_i).
    Raises UserError for shapes that do not fit, values that are not finite, n < 1 and n > m.
    """

    def __init__(self, matrix: Tensor, targets: Tensor, clients: int) -> None:
        if matrix.ndim != 2 or targets.shape != matrix.shape[:1] or matrix.shape[1] == 0:
            raise UserError(
                f"a matrix {tuple(matrix.shape)} and targets {tuple(targets.shape)} do not fit; "
                "they must be (m, d) and (m,)"
            )
        if not 1 <= clients <= len(matrix):
            raise UserError(
                f"{len(matrix)} rows cannot be dealt to {clients} clients; "
                "each needs at least one row"
            )
        if not (matrix.isfinite().all() and targets.isfinite().all()):
            raise UserError("the matrix or the targets have values that are not finite")
        self.n = clients
        self.matrix = matrix.to(torch.float64).contiguous()
        self.targets = targets.to(torch.float64)
        self._each = len(matrix) // clients
        self._even = clients * self._each  # rows before the remainder
        self.sizes = torch.full((clients,), self._each)
        self.sizes[-1] += len(matrix) - self._even
        self.weights = 1.0 / (clients * self.sizes.repeat_interleave(self.sizes).double())

    def means(self, rows: Tensor) -> Tensor:
        """The mean of ``rows`` (m,) over each client's rows, (n,)."""
        sums = rows[: self._even].view(self.n, self._each).sum(dim=1)
        sums[-1] += rows[self._even :].sum()
        return sums / self.sizes

    def combine(self, slopes: Tensor) -> Tensor:
        """(1/m_i) A_i^T s_i for slopes s (m,) of each client, (n, d)."""
        blocks = self._blocks.transpose(1, 2)
        sums = torch.bmm(blocks, slopes[: self._even].view(self.n, self._each, 1))[..., 0]
        sums[-1] += self.matrix[self._even :].T @ slopes[self._even :]
        return sums / self.sizes[:, None]

    def gram(self) -> Tensor:
        """(1/n) sum A_i^T A_i / m_i, (d, d)."""
        return self.matrix.T @ (self.weights[:, None] * self.matrix)

    def client_tops(self) -> Tensor:
        """The largest eigenvalue of A_i^T A_i / m_i of each client, (n,): ||A_i||^2 / m_i."""
        tops = torch.cat([_tops(self._blocks[:-1]), _tops(self._last[None])])
        return tops / self.sizes

    @cached_property
    def supports(self) -> Tensor:
        """Whether feature j occurs in client i's rows: (n, d) bool."""
        present = (self._blocks != 0).any(dim=1)
        present[-1] = (self._last != 0).any(dim=0)
        return present

    @property
    def _blocks(self) -> Tensor:
        """(n, rows, d), without the remainder."""
        return self.matrix[: self._even].view(self.n, self._each, -1)

    @property
    def _last(self) -> Tensor:
        return self.matrix[self._even - self._each :]


def _tops(blocks: Tensor) -> Tensor:
    """The squared spectral norms of blocks (n, rows, d), (n,), from the smaller Gram matrices."""
    transposed = blocks.transpose(1, 2)
    wide = blocks.shape[1] <= blocks.shape[2]
    grams = torch.bmm(blocks, transposed) if wide else torch.bmm(transposed, blocks)
    largest: Tensor = torch.linalg.eigvalsh(grams)[:, -1]
    return largest.clamp_min(0.0)
