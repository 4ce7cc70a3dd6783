"""Configurations: what is accepted, and what bad input is told."""

from functools import partial
from pathlib import Path

import pytest
import torch

from tacit.config import RunConfig, parse_call, parse_value
from tacit.errors import UserError


def test_parse_call() -> None:
    assert parse_call("fda:theta=1.5,estimator=sketch,every=2") == (
        "fda",
        {"theta": 1.5, "estimator": "sketch", "every": 2},
    )
    assert parse_call("synchronous") == ("synchronous", {})
    assert parse_call("diloco:server-lr=0.7,nesterov=false")[1] == {
        "server_lr": 0.7,
        "nesterov": False,
    }
    assert parse_value("1e-3") == 0.001
    assert parse_value("iid") == "iid"


def test_file_round_trip(tmp_path: Path) -> None:
    config = RunConfig("fda", {"theta": 2.0}, workers=7, target=0.9, optimizer="sgd:lr=0.1")
    (tmp_path / "config.json").write_text(config.to_json())
    assert RunConfig.from_file(tmp_path / "config.json") == config
    assert config.label == "fda:theta=2.0"


def test_optimizer() -> None:
    factory = RunConfig("local_sgd", optimizer="adamw:lr=0.5,weight_decay=0.1").build_optimizer()
    assert isinstance(factory, partial)
    optimizer = factory([torch.zeros(1)])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "fdaa"}, "unknown recipe 'fdaa'; did you mean 'fda'"),
        ({"recipe": "fda", "options": {"theta": -1.0}}, "theta must be a finite number"),
        ({"recipe": "fda", "options": {"theta": "high"}}, "recipe fda: a value is of the wrong"),
        ({"recipe": "fda", "options": {"teta": 1}}, "did you mean 'theta'"),
        ({"recipe": "fda", "options": {"theta": 1, "estimator": "linar"}}, "did you mean 'linear'"),
        ({"recipe": "local_sgd", "options": {"period": 0}}, "at least 1 step"),
        ({"recipe": "fedavg", "options": {"fraction": 0.0}}, r"in \(0, 1\]"),
        ({"recipe": "fda", "options": {"theta": 1, "lag": -2}}, "0 or more steps"),
        ({"recipe": "synchronous", "workers": 0}, "workers must be at least 1, got 0"),
        ({"recipe": "synchronous", "steps": 0}, "steps must be at least 1"),
        ({"recipe": "synchronous", "processes": 5}, "5 processes cannot share 4 workers"),
        ({"recipe": "synchronous", "epochs": -1.0}, "epochs must be above 0"),
        ({"recipe": "synchronous", "target": 95.0}, "between 0 and 1"),
        ({"recipe": "synchronous", "link": "fast"}, "link 'fast' is not understood"),
        ({"recipe": "synchronous", "optimizer": "adamm"}, "did you mean 'adam'"),
        ({"recipe": "synchronous", "optimizer": "adam:lr=-1"}, "Invalid learning rate"),
        ({"recipe": "synchronous", "optimizer": "sgd:nu=1"}, "unexpected keyword"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        RunConfig(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match="give the folder of a run"):
        RunConfig.from_file(path)
    for content in ("{", '{"recipe": "fda", "colour": 3}', "[]", '"x"'):
        path.write_text(content)
        with pytest.raises(UserError, match="is not a run's configuration"):
            RunConfig.from_file(path)
