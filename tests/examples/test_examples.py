"""The examples, as a user runs them: under torchrun."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from helpers.shared import once
from tacit import checkpoint

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Job = subprocess.Popen[str]


@contextmanager
def torchrun(
    processes: int, script: str, *arguments: str, restarts: int = 0, looks_every: float = 0.1
) -> Iterator[Job]:
    """A running job; no process of it is left behind."""
    options = [f"--nproc-per-node={processes}", f"--monitor-interval={looks_every}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if restarts:
        options.append(f"--max-restarts={restarts}")
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see resume.py
    launcher = ["-m", "torch.distributed.run", "--standalone", *options]
    job = subprocess.Popen(
        [sys.executable, *launcher, str(EXAMPLES / script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield job
    finally:
        if job.poll() is None:
            job.send_signal(signal.SIGSTOP)  # or it would start further workers
            _kill(workers(job).values())
            job.kill()
        job.communicate()


def workers(job: Job) -> dict[int, int]:
    """Process numbers of the running workers, by rank. Each has a session of its own."""
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


def _kill(processes: Iterable[int], how: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, how)


def finish(job: Job, succeeds: bool = True) -> tuple[str, str]:
    """What it wrote, on its output and as errors."""
    output, errors = job.communicate(timeout=90)
    assert (job.returncode == 0) is succeeds, errors
    return output, errors


def run(processes: int, script: str, *arguments: str) -> str:
    with torchrun(processes, script, *arguments) as job:
        return finish(job)[0]


def accuracy(output: str) -> float:
    (found,) = re.findall(r"^accuracy ([\d.]+)", output, re.MULTILINE)
    return float(found)


def counts(output: str) -> tuple[int, int]:
    (found,) = re.findall(r"^(\d+) steps, (\d+) synchronisations", output, re.MULTILINE)
    return int(found[0]), int(found[1])


def wait_for_step(folder: Path, step: int) -> None:
    """Until there is a checkpoint of this step."""
    deadline = time.monotonic() + 60
    while (checkpoint.latest(folder) or "") < f"step-{step:09d}":
        assert time.monotonic() < deadline, f"no checkpoint of step {step} appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What resume.py prints, and the model that it leaves."""

    def compute():
        folder = tmp_path_factory.mktemp("undisturbed")
        output = run(2, "resume.py", str(folder))
        return output, torch.load(folder / "model.pt")

    return once(tmp_path_factory, "resume-example", compute)


def test_the_readme_shows_the_difference():
    ddp, attach = ((EXAMPLES / name).read_text().splitlines() for name in ("ddp.py", "attach.py"))
    lines = difflib.unified_diff(ddp, attach, n=0, lineterm="")
    changes = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    assert len(changes) < 12
    (shown,) = re.findall(r"```diff\n(.*?)\n```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    assert shown.splitlines() == changes


@pytest.mark.slow
def test_from_ddp_to_attach():
    before, after = run(2, "ddp.py"), run(2, "attach.py")
    assert accuracy(after) > accuracy(before) - 0.02
    steps, synchronisations = counts(after)
    assert 0 < synchronisations < steps / 10


@pytest.mark.slow
def test_accumulation_and_mixed_precision():
    output = run(2, "accumulate_amp.py")
    assert accuracy(output) > 0.93
    assert counts(output)[0] == 15 * 22
    scale = float(re.findall(r"scale (\S+)", output)[0])
    assert scale < 2**24  # some steps were skipped


@pytest.mark.slow
def test_the_others_learn_beside_one_that_lies_and_one_that_is_gone():
    lines = re.findall(r"worker (\d): (\d+) steps, accuracy (\d\.\d{3})", run(6, "monna.py"))
    ends = {int(worker): (int(steps), float(right)) for worker, steps, right in lines}
    assert sorted(ends) == [0, 1, 2, 3, 4]
    assert all(steps == 150 and right > 0.85 for steps, right in ends.values()), ends


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--ddp"]], ids=["ours", "ddp"])
def test_islands(options):
    output = run(4, "islands.py", *options)
    assert accuracy(output) > 0.93
    steps, synchronisations = counts(output)
    assert 0 < synchronisations < steps / 10


# -- accidents


@pytest.mark.slow
def test_a_job_outlives_a_killed_worker(undisturbed, tmp_path):
    with torchrun(2, "resume.py", str(tmp_path), restarts=2) as job:
        wait_for_step(tmp_path, 100)
        _kill([workers(job)[1]])
        output, _ = finish(job)
    first, second = map(int, re.findall(r"going on from step (\d+)", output))
    assert (first, second >= 100) == (0, True)
    assert counts(output)[0] == 500
    assert accuracy(output) == pytest.approx(accuracy(undisturbed[0]), abs=0.02)


@pytest.mark.slow
def test_a_job_that_was_killed_as_a_whole_ends_with_the_same_model(undisturbed, tmp_path):
    with torchrun(2, "resume.py", str(tmp_path), restarts=2) as job:
        wait_for_step(tmp_path, 100)
        everyone = workers(job).values()
        _kill(everyone, signal.SIGSTOP)  # so that none notices the others' end
        _kill(everyone)
        output, _ = finish(job)
    began = [int(step) for step in re.findall(r"going on from step (\d+)", output)]
    assert began[0] == 0
    assert began[1] in range(100, 500, 50)
    assert accuracy(output) == accuracy(undisturbed[0])
    model = torch.load(tmp_path / "model.pt")
    for name, value in undisturbed[1].items():
        assert torch.equal(model[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_the_survivor_stops_names_the_rank_and_leaves_a_checkpoint(how, tmp_path):
    # torchrun looks seldom: it would stop a survivor that has not noticed yet
    with torchrun(2, "resume.py", str(tmp_path), "--timeout=3", looks_every=2) as job:
        wait_for_step(tmp_path, 100)
        victim = workers(job)[1]
        _kill([victim], how)
        began = time.monotonic()
        while 0 in workers(job):
            assert time.monotonic() < began + 40, "the survivor goes on"
            time.sleep(0.05)
        _kill([victim])  # torchrun gives one that hangs 30 s to end
        _, errors = finish(job, succeeds=False)
    assert re.search(
        r"PeerLost: rank 1 of 2 did not answer at step \d+ or after; what is left", errors
    )
    shared, files = checkpoint.open_folder(tmp_path)
    assert 100 <= shared["steps"] < 500
    # where both had just saved the same step, that checkpoint stays
    assert sorted(files) == ([0, 1] if shared["steps"] % 50 == 0 and len(files) == 2 else [0])
