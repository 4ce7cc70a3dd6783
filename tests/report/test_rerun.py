from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

from tacit.config import RunConfig, parse_call, parse_value
from tacit.report.rerun import command


def parsed(line: str) -> RunConfig:
    """What the command line says, with each flag a field of the configuration."""
    program, verb, call, *flags = shlex.split(line)
    assert (program, verb) == ("tacit", "run")
    recipe, options = parse_call(call)
    values: dict[str, Any] = {}
    while flags:
        name = flags.pop(0).removeprefix("--").replace("-", "_")
        values[name] = parse_value(flags.pop(0)) if flags and flags[0][:2] != "--" else True
    return RunConfig(recipe, options, **values)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("synchronous"),
        RunConfig("fda", {"theta": 0.5, "estimator": "sketch", "lag": 1}, workers=10, seed=3),
        RunConfig("diloco", {"nesterov": False}, partition="sorted:0.6", steps=100, epochs=2.5),
        RunConfig(
            "fedavg",
            data="a folder; with 'odd' $names",
            batch_size=8,
            optimizer="adam:lr=0.001,eps=1e-7",
            deterministic=True,
            target=0.9,
            stop_at_target=True,
            evaluate_every=5,
            link="1gbit,1ms,star",
        ),
    ],
)
def test_the_command_line_gives_the_configuration_back(config: RunConfig) -> None:
    line = command(dataclasses.asdict(config))
    assert parsed(line) == config
    assert "\n" not in line


def test_defaults_are_left_out() -> None:
    line = command(dataclasses.asdict(RunConfig("fda", {"theta": 1.0})))
    assert line == "tacit run fda:theta=1.0 --task digits --workers 4 --seed 0"
