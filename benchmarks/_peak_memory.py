"""The extra peak memory of each rule, measured in a process of its own.

    python benchmarks/_peak_memory.py N D [--theirs]

Prints a JSON object: rule -> [Tacit's bytes, ByzFL's bytes or null]. Linux keeps the largest size
that a process has had in memory (VmHWM), and sets it back to the present size when asked
(/proc/self/clear_refs); so nothing is sampled and no peak is missed. Before that every rule runs on
a few columns, so that libraries and compiled code are there. glibc is told to hand freed blocks of
64 kB and more back at once, or a rule could use again, unseen, what another left. The output counts
as extra, the input does not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_GLIBC = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
}


def peaks(n: int, d: int, theirs: bool) -> dict[str, list[int | None]]:
    """The extra bytes of each rule with ``n`` rows of ``d``; empty where Linux does not tell."""
    command = [sys.executable, __file__, str(n), str(d), *(["--theirs"] if theirs else [])]
    done = subprocess.run(command, env=os.environ | _GLIBC, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return {}
    found: dict[str, list[int | None]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert match is not None
    return 1024 * int(match[1])


def extra(function: Any, rows: Any) -> int:
    """How many bytes more than before ``function(rows)`` has in memory at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = function(rows)
    peak = _status("VmHWM")
    del result
    return peak - before


def main() -> None:
    from _byzfl import byzfl
    from _robust_rules import RULES, bad, noise

    n, d, theirs = int(sys.argv[1]), int(sys.argv[2]), "--theirs" in sys.argv
    library = byzfl() if theirs else None
    rows, tiny = noise(n, d), noise(n, 1 << 16)
    found: dict[str, list[int | None]] = {}
    for name, rule in RULES.items():
        f = bad(name, n)
        functions = [rule.ours(n, f)]
        # ByzFL's SMEA would take minutes
        functions += [rule.theirs(library, f)] if library and name != "smea" else []
        sizes: list[int | None] = []
        for function in functions:
            function(tiny)
            sizes.append(extra(function, rows))
        found[name] = sizes + [None] * (2 - len(sizes))
    print(json.dumps(found))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
