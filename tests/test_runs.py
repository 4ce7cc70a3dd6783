"""The run folder, and running a configuration in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tacit import checkpoint
from tacit.config import RunConfig
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import LocalFleet
from tacit.recipes import RECIPES
from tacit.runner import build, execute
from tacit.runs import RunFolder, RunRecord, read_run

OPTIONS: dict[str, dict[str, Any]] = {
    "fda": {"theta": 0.05, "estimator": "linear"},
    "local_sgd": {"period": 7},
    "diloco": {"period": 9},
    "fedavg": {"fraction": 0.5},
    "dgc": {"lr": 0.05},
    "monna": {"f": 1},
    "learn": {"f": 1},
    "byz_ef21": {"f": 1},
    "rosdhb": {"f": 1},
}


def run(config: RunConfig, path: Path, resume: bool = False) -> RunRecord:
    return execute(
        config, lambda: RunFolder(path) if resume else RunFolder.create(path, config), None, resume
    )


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clocks = ("seconds", "step_seconds", "predicted_seconds")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows]


def test_a_run_leaves_its_folder(tmp_path: Path) -> None:
    config = RunConfig("fda", {"theta": 0.1}, workers=3, steps=30, evaluate_every=10)
    record = run(config, tmp_path / "run")
    assert [row["step"] for row in record.rows] == [10, 20, 30]
    assert record.label == "fda:theta=0.1"
    assert record.summary["finished"]
    assert record.summary["parameters"] == 4810
    assert sum(record.summary["sent_per_worker"]) * 2 == sum(record.rows[-1]["bytes"].values())
    assert RunConfig.from_file(tmp_path / "run" / "config.json") == config
    with pytest.raises(UserError, match="already holds a run"):
        run(config, tmp_path / "run")


def test_config_json_reruns_the_run(tmp_path: Path) -> None:
    config = RunConfig("local_sgd", {"period": 4}, workers=3, steps=20, order="resample", seed=3)
    first = run(config, tmp_path / "a")
    second = run(RunConfig.from_file(tmp_path / "a" / "config.json"), tmp_path / "b")
    assert without_times(first.rows) == without_times(second.rows)


def test_stop_at_target(tmp_path: Path) -> None:
    config = RunConfig(
        "synchronous", workers=2, steps=500, target=0.5, stop_at_target=True, evaluate_every=5
    )
    record = run(config, tmp_path / "run")
    assert record.rows[-1]["accuracy"] >= 0.5 > record.rows[-2]["accuracy"]
    assert record.at_target(0.5) == record.rows[-1]


@pytest.mark.parametrize(
    ("recipe", "extra"),
    [(name, {"delta": 0.05} if name == "dynamic_averaging" else {}) for name in RECIPES]
    + [("fda", {"lag": 1}), ("fda", {"estimator": "sketch", "optimizer_state": "average"})],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, recipe: str, extra: dict[str, Any]
) -> None:
    options = {**OPTIONS.get(recipe, {}), **extra}
    config = RunConfig(recipe, options, workers=4, steps=40, evaluate_every=8, checkpoint_every=13)
    whole = build(config, LocalFleet(4))
    rows = [e.as_dict() for e in whole.run(40, 8)]

    # the same run, cut off after step 30: its last checkpoint is that of step 26
    folder = RunFolder.create(tmp_path / "run", config)
    with pytest.raises(Interrupt):
        execute(config, lambda: folder, StopAt(30))
    assert not read_run(folder.path).summary["finished"]

    record = run(config, folder.path, resume=True)
    assert json.dumps(without_times(record.rows)) == json.dumps(without_times(rows))
    shared, workers = checkpoint.read_folder(folder.checkpoints, range(4))
    assert shared["steps"] == 39  # the resumed run wrote its own checkpoints

    again = build(config, LocalFleet(4))
    again.load_state(shared, workers)
    again.step()
    assert torch.equal(again.replicas.parameters, whole.replicas.parameters)


class Interrupt(Exception):
    """The run is cut off."""


class StopAt:
    """An observer that cuts a run off."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, config: RunConfig, steps: int) -> None:
        pass

    def stepped(self, step: int, synchronisations: int, total_bytes: int) -> None:
        if step == self.step:
            raise Interrupt

    def evaluated(self, evaluation: Any) -> None:
        pass

    def end(self) -> None:
        pass


def test_resume_without_a_checkpoint(tmp_path: Path) -> None:
    config = RunConfig("local_sgd", workers=2, steps=3)
    run(config, tmp_path / "run")
    with pytest.raises(UserError, match="--checkpoint-every"):
        run(config, tmp_path / "run", resume=True)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    config = RunConfig("local_sgd", workers=2, steps=4, checkpoint_every=2)
    run(config, tmp_path / "run")
    victim = tmp_path / "run" / "checkpoints" / "step-000000004" / "worker-00001.tacit"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"worker-00001\.tacit is damaged"):
        run(config, tmp_path / "run", resume=True)


def test_diverging_run_stays_readable(tmp_path: Path) -> None:
    config = RunConfig("local_sgd", workers=2, steps=200, optimizer="sgd:lr=1e30", evaluate_every=1)
    with pytest.raises(TrainingDiverged, match=r"loss of worker \d is not finite at step \d+"):
        run(config, tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert not record.summary["finished"]
    assert "not finite" in record.summary["error"]
    assert len(record.rows) == record.summary["steps"] - 1


def test_more_workers_than_samples(tmp_path: Path) -> None:
    config = RunConfig("local_sgd", workers=5000, steps=1)
    with pytest.raises(UserError, match="5000"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing half-written


def test_a_cut_off_last_line_is_left_out_and_another_is_an_error(tmp_path: Path) -> None:
    run(RunConfig("local_sgd", workers=2, steps=3, evaluate_every=1), tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines, lines[-1][:20]]))
    assert len(read_run(tmp_path / "run").rows) == 3
    metrics.write_text("\n".join([lines[0][:20], *lines[1:]]))
    with pytest.raises(UserError, match="line 1, is damaged"):
        read_run(tmp_path / "run")


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder of a run"):
        read_run(tmp_path)
