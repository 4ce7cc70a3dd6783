"""The examples, as a user runs them: under torchrun."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextmanager
def torchrun(
    processes: int, script: str, *arguments: str, restarts: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """A running job; no process of it is left behind."""
    command = [sys.executable, "-m", "torch.distributed.run"]
    # the default, static rendezvous hands restarted workers the addresses of dead ones
    options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    job = subprocess.Popen(
        [*command, *options, str(EXAMPLES / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield job
    finally:
        for process in [*workers(job).values(), job.pid]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        job.communicate()


def workers(job: subprocess.Popen[str]) -> dict[int, int]:
    """Process numbers of the running workers, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            rank = re.search(rb"\0RANK=(\d+)", (process / "environ").read_bytes())
        except (OSError, ValueError):
            continue
        if parent == job.pid and rank:
            found[int(rank[1])] = int(process.name)
    return found


def finish(job: subprocess.Popen[str], timeout: float = 90.0) -> tuple[str, str]:
    output, errors = job.communicate(timeout=timeout)
    return output, errors


def accuracy(output: str) -> float:
    (found,) = re.findall(r"^accuracy ([\d.]+)", output, re.MULTILINE)
    return float(found)


def wait_for(path: Path, text: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not (path.exists() and path.read_text() >= text):
        assert time.monotonic() < deadline, f"{path} never came to {text}"
        time.sleep(0.02)


@pytest.mark.slow
def test_from_ddp_to_attach_in_a_few_lines() -> None:
    with torchrun(2, "ddp.py") as job:
        before, errors = finish(job)
        assert job.returncode == 0, errors
    with torchrun(2, "attach.py") as job:
        after, errors = finish(job)
        assert job.returncode == 0, errors
    assert accuracy(after) > accuracy(before) - 0.02
    steps, synchronisations = map(int, re.findall(r"(\d+) (?:steps|sync)", after))
    assert 0 < synchronisations < steps / 10


def test_the_readme_shows_the_difference() -> None:
    ddp, attach = ((EXAMPLES / name).read_text().splitlines() for name in ("ddp.py", "attach.py"))
    changes = [
        line
        for line in difflib.unified_diff(ddp, attach, n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    assert len(changes) < 12
    (shown,) = re.findall(r"```diff\n(.*?)\n```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    assert sorted(shown.splitlines()) == sorted(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "script", "least"), [(2, "accumulate_amp.py", 0.8), (4, "islands.py", 0.9)]
)
def test_runs(processes: int, script: str, least: float) -> None:
    with torchrun(processes, script) as job:
        output, errors = finish(job)
        assert job.returncode == 0, errors
    assert accuracy(output) > least


@pytest.mark.slow
def test_a_job_outlives_a_killed_worker(tmp_path: Path) -> None:
    with torchrun(2, "resume.py", str(tmp_path / "quiet")) as job:
        undisturbed, errors = finish(job)
        assert job.returncode == 0, errors
    with torchrun(2, "resume.py", str(tmp_path / "shot"), restarts=2) as job:
        wait_for(tmp_path / "shot" / "latest", "step-000000100")
        os.kill(workers(job)[1], signal.SIGKILL)
        output, errors = finish(job)
        assert job.returncode == 0, errors
    began = [int(n) for n in re.findall(r"going on from step (\d+)", output)]
    assert began[0] == 0
    assert began[1] >= 100
    assert accuracy(output) == pytest.approx(accuracy(undisturbed), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_without_restarts_the_error_names_the_rank(how: signal.Signals, tmp_path: Path) -> None:
    with torchrun(2, "resume.py", str(tmp_path), "--timeout", "3") as job:
        wait_for(tmp_path / "latest", "step-000000100")
        victim = workers(job)[1]
        os.kill(victim, how)
        began = time.monotonic()
        if how is signal.SIGSTOP:
            # torchrun waits long for one that does not even end
            while len(workers(job)) > 1 and time.monotonic() < began + 30:
                time.sleep(0.1)
            os.kill(victim, signal.SIGKILL)
        _, errors = finish(job)
        assert job.returncode != 0
    if how is signal.SIGSTOP or "PeerLost" in errors:
        assert "rank 1 of 2 did not answer" in errors
    assert (tmp_path / "latest").read_text() >= "step-000000100"
