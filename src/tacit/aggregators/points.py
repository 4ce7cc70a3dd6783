"""The senders' vectors as the robust rules see them: distances, and passes over columns.

Most rules need only the distances between the vectors to find a weight for each, and then one
weighted sum. A pre-aggregator makes new points that are linear combinations of the rows
(:class:`Mixed`); their distances follow from those of the rows, and the mixed vectors themselves
exist a block of columns at a time.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import passes
from tacit.aggregators.base import called
from tacit.aggregators.network import Plan
from tacit.aggregators.passes import Array
from tacit.errors import UserError
from tacit.rng import numpy_stream

# Directions of rows this many times farther from the reference than most are taken from the rows:
# as differences of squared distances they would lose as many digits.
_FAR = 100.0


class Points:
    """``rows (n, d)``, finite but for at most ``budget`` of them.

    ``weights (n,)``: float64, or None where all count the same. ``pivot``: the own row, of rules
    that have one. ``senders (n,)``: the workers that sent the rows, for errors; None: not known. A
    row is *bad* if it holds NaN or inf, or if its squared norm overflows float64: all its distances
    are inf, and no pass reads it. UserError where more than ``budget`` are.
    """

    def __init__(
        self,
        rows: Tensor,
        budget: int,
        kernel: bool | None = None,
        weights: Array | None = None,
        pivot: int | None = None,
        senders: Array | None = None,
    ) -> None:
        self.rows, self.budget, self.kernel = rows, budget, kernel
        self.weights, self.pivot, self.senders = weights, pivot, senders
        self.n, self.d = len(rows), rows.shape[1]

    # -- distances

    @functools.cached_property
    def squared(self) -> Array:
        """Squared distances, ``(n, n)``; inf from bad points, 0 on the diagonal."""
        rows, found = self.rows, passes.squared_distances(self.rows, self.kernel)
        np.fill_diagonal(found, 0)
        odd = np.flatnonzero(~np.isfinite(found).all(1))
        self._mark(odd)
        # What float32 cannot square, though it is finite: far too large, or all of it very small.
        if len(odd) or (rows.dtype != torch.float64 and found.max(initial=0) < 1e-28 * self.d):
            among = np.flatnonzero(~self.bad)
            again = among if len(odd) == 0 else np.intersect1d(odd, among)
            for i in again.tolist():
                found[i, among] = passes.wide_squared_to(rows, among, rows[i])
                found[among, i] = found[i, among]
            found[self.bad] = found[:, self.bad] = np.inf
        return found

    @functools.cached_property
    def norms(self) -> Array:
        """Squared norms, ``(n,)``; inf of bad points."""
        return self.squared_from(self.rows.new_zeros(self.d))

    def squared_from(self, point: Tensor) -> Array:
        """Squared distances from a finite vector ``(d,)``: ``(n,)``; inf of bad points."""
        found = passes.squared_to(self.rows, point, self.kernel)
        odd = np.flatnonzero(~np.isfinite(found))
        self._mark(odd)
        found[odd] = passes.wide_squared_to(self.rows, odd, point) if len(odd) else 0
        found[self.bad] = np.inf
        return found

    @property
    def held(self) -> Tensor:
        """The points' own rows, ``(n, d)``: a copy where they are some of a larger matrix."""
        return self.rows

    @property
    def own(self) -> Tensor:
        """The own row ``(d,)``, of rules that have one: the first, if nothing was said."""
        return self.rows[self.pivot or 0]

    def called(self, some: Array) -> str:
        """What errors call some of the points: ``workers 3, 27``, or ``rows``."""
        names = some if self.senders is None else self.senders[some]
        return called("row" if self.senders is None else "worker", names)

    def squared_from_own(self) -> Array:
        """Squared distances from the own row, ``(n,)``."""
        return self.squared_from(self.own)

    @property
    def bad(self) -> Array:
        """Bad points, ``(n,)`` bool."""
        if "_bad" not in self.__dict__:
            self.norms  # noqa: B018  (marks them)
        bad: Array = self._bad
        return bad

    def _mark(self, suspects: Array) -> None:
        """Of all rows, only these may be bad."""
        if "_bad" in self.__dict__:
            return
        self._bad = np.zeros(self.n, np.bool_)
        if len(suspects):
            zero = self.rows.new_zeros(self.d)
            norms = passes.wide_squared_to(self.rows, suspects, zero)
            self._bad[suspects[~np.isfinite(norms)]] = True
        if self._bad.sum() > self.budget:
            raise too_many(self, np.flatnonzero(self._bad), self.budget)

    @property
    def good(self) -> Array:
        """The indices of the points that are not bad."""
        return np.flatnonzero(~self.bad)

    def gram(self, most: int) -> tuple[Array, Array]:
        """Inner products of the good points as seen from one of them, and their indices.

        That one has its ``most - 1`` nearest nearer than any other has, so it is no outlier.
        """
        good = self.good
        squared = self.squared[np.ix_(good, good)]
        r = int(np.argmin(np.sort(squared, axis=1)[:, min(most, len(good)) - 1]))
        distance = squared[r]
        gram = (distance[:, None] + distance - squared) / 2
        far = np.flatnonzero(distance > _FAR**2 * np.median(distance))
        if len(far):
            length = np.sqrt(distance[far])
            turned = self._directions(good, far, length, r) * length[:, None]
            gram[far], gram[:, far] = turned, turned.T
            gram[far, far] = distance[far]
        return gram, good

    def _directions(self, good: Array, far: Array, length: Array, r: int) -> Array:
        """Inner products of the unit vectors towards ``far`` with all: ``(k, n)``."""
        total = torch.zeros(len(far), len(good), dtype=torch.float64, device=self.rows.device)
        scale = torch.from_numpy(length).to(total)[:, None]
        for _, block in self.blocks(good):
            seen = block.double() - block[r].double()
            total += (seen[torch.from_numpy(far).to(seen.device)] / scale) @ seen.T
        out: Array = total.cpu().numpy()
        return out

    # -- passes over the vectors

    def combine(self, shares: Array) -> Tensor:
        """``sum_i shares_i x_i``, ``(d,)``; points of share 0 are not read."""
        return passes.weighted_sum(self.rows, shares, self.kernel)

    def middle(self, plan: Plan, chosen: Array | None = None) -> Tensor:
        """What ``plan`` says of every column of the ``chosen`` points (None: of all)."""
        out = self.rows.new_empty(self.d)
        passes.middle_means(self.rows, plan, out, chosen, self.kernel)
        return out

    def blocks(self, chosen: Array | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The ``chosen`` points, a block of columns at a time, not to be written to."""
        for span in passes.spans(self.rows):
            block = self.rows[:, span]
            yield span, block if chosen is None else block[torch.from_numpy(chosen)]

    def columns(self, some: Array) -> Array:
        """Some columns of the good points, ``(g, k)`` float64."""
        out: Array = self.picked(some)[self.good]
        return out

    def draws(self, seed: int, name: str) -> np.random.Generator:
        """Random numbers that follow from the seed and these rows: the same for the same rows in
        every process, others at the next step."""
        some = np.linspace(0, self.d - 1, min(self.d, 64)).astype(np.int64)
        seen = self.picked(some)
        digest = hashlib.blake2b(np.ascontiguousarray(seen).tobytes(), digest_size=8).hexdigest()
        return numpy_stream(seed, name, digest)

    def picked(self, some: Array) -> Array:
        """Some columns of all points, bad ones too: ``(n, k)`` float64."""
        picked = self.rows[:, torch.from_numpy(some).to(self.rows.device)]
        out: Array = picked.double().cpu().numpy()
        return out


def too_many(points: Points, bad: Array, budget: int) -> UserError:
    """The error for more bad points than a rule stands."""
    return UserError(
        f"{len(bad)} of {points.n} rows hold NaN or inf or overflow ({points.called(bad)}), more "
        f"than the {budget} this rule stands"
    )
