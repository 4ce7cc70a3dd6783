"""Checkpoints: exact, whole or not there, and never pickle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tacit import checkpoint
from tacit.errors import UserError
from tacit.fleet import LocalFleet

TREE = {
    "tensor": torch.tensor([1.5, float("nan"), -0.0]),
    "array": np.arange(3, dtype=np.int64),
    "nested": [{"deep": (1, 2.5, "text")}, None, True],
    "empty": torch.zeros(0, 4),
    "third": 1 / 3,
}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.tacit"
    checkpoint.save(path, TREE)
    back = checkpoint.load(path)
    assert torch.equal(back["tensor"].view(torch.int32), TREE["tensor"].view(torch.int32))
    assert isinstance(back["array"], np.ndarray)
    assert back["array"].tolist() == [0, 1, 2]
    assert back["nested"] == [{"deep": (1, 2.5, "text")}, None, True]
    assert back["empty"].shape == (0, 4)
    assert back["third"] == 1 / 3
    assert list(tmp_path.iterdir()) == [path]  # nothing temporary is left


def test_keys_may_be_numbers(tmp_path: Path) -> None:
    tree = {0: {1: 2, "a": torch.ones(2)}, "b": {}}
    checkpoint.save(tmp_path / "a.tacit", tree)
    loaded = checkpoint.load(tmp_path / "a.tacit")
    assert loaded[0][1] == 2
    assert torch.equal(loaded[0]["a"], torch.ones(2))
    assert loaded["b"] == {}


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tacit"
    checkpoint.save(path, TREE)
    content = path.read_bytes()
    positions = np.random.default_rng(0).choice(len(content), 60, replace=False)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        path.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match=r"a\.tacit is damaged"):
            checkpoint.load(path)
    for end in (0, 3, 8, 20, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"a\.tacit is damaged"):
            checkpoint.load(path)


def test_missing_file_and_unsaveable_value(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no"):
        checkpoint.load(tmp_path / "b.tacit")
    with pytest.raises(TypeError, match="cannot hold a object"):
        checkpoint.save(tmp_path / "b.tacit", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_folder_keeps_the_latest(tmp_path: Path) -> None:
    fleet = LocalFleet(3)
    for step in (5, 10):
        states: dict[int, Any] = {k: {"worker": k, "step": step} for k in range(3)}
        checkpoint.write_folder(tmp_path, step, fleet, {"steps": step}, states)
    shared, workers = checkpoint.read_folder(tmp_path, [1, 2])
    assert shared == {"steps": 10}
    assert workers == {k: {"worker": k, "step": 10} for k in (1, 2)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-000000010"]


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--checkpoint-every"):
        checkpoint.read_folder(tmp_path, [0])
