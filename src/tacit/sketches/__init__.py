"""Small linear summaries of long vectors, from which a squared norm is estimated."""

from __future__ import annotations

from tacit.sketches.ams import AMSSketch, squared_norm
from tacit.sketches.moments import drift_moments, moments

__all__ = ["AMSSketch", "drift_moments", "moments", "squared_norm"]
