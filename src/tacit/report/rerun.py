"""From a run's configuration back to the command line that repeats it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from tacit.config import RunConfig

#: Named on the command line even where they are the defaults.
_ALWAYS = ("task", "workers", "seed")


def command(config: Mapping[str, Any]) -> str:
    """``tacit run fda:theta=1.0 --task digits ...``, quoted for a shell; defaults are left out."""
    options = ",".join(f"{name}={value}" for name, value in config["options"].items())
    words = ["tacit", "run", f"{config['recipe']}:{options}" if options else config["recipe"]]
    for field in dataclasses.fields(RunConfig):
        name, value = field.name, config.get(field.name)
        if name in ("recipe", "options") or value is None:
            continue
        if value == field.default and name not in _ALWAYS:
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)
