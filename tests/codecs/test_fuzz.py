"""The short form of ``fuzz.py``."""

from __future__ import annotations

from fuzz import fuzz


def test_bytes_that_no_encoder_wrote() -> None:
    outcomes = fuzz(6000)
    assert sum(outcomes.values()) == 6000
    for code in ("bitmap", "nested", "rice", "fp16", "int8", "int4", "sign"):
        assert outcomes[f"{code}: decoded"] > 10, code
        assert outcomes[f"{code}: refused"] > 10, code
