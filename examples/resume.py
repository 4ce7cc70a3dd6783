"""A job that outlives its workers.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 examples/resume.py FOLDER

When a worker dies, torchrun starts all of them again, and ``attach`` goes on from the latest
checkpoint in FOLDER. When one hangs, the others give up after ``--timeout`` seconds, with the same
effect. Without the variable, torchrun now and then hands restarted workers the addresses of the
dead (pytorch issue 135712); across machines, use --rdzv-backend c10d as well. Run it twice to see
that a finished job stays finished.
"""

import argparse
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import tacit
from tacit.tasks import load

SEED, STEPS, SAVE_EVERY = 0, 500, 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="where the checkpoints are; all processes see it")
    parser.add_argument("--timeout", type=float, default=60.0, help="how long a peer may be silent")
    options = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(seconds=options.timeout))
    rank = dist.get_rank()
    torch.manual_seed(SEED)
    digits = load("digits")

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=200, gamma=0.3)
    sync = tacit.attach(
        model,
        optimizer,
        tacit.fda(theta=1.0),
        checkpoint=options.folder,
        stateful={"scheduler": scheduler},
    )
    if rank == 0:
        print(f"going on from step {sync.steps}", flush=True)

    while sync.steps < STEPS:
        # a function of the step alone, so a run that is resumed draws what it would have drawn
        draw = np.random.default_rng((SEED, rank, sync.steps))
        x, y = digits.train.batch(draw.integers(len(digits.train), size=32))
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if sync.steps % SAVE_EVERY == 0:
            sync.save()
    sync.finish()

    correct = model(digits.test.inputs).argmax(1) == digits.test.targets
    if rank == 0:
        torch.save(model.state_dict(), options.folder / "model.pt")
        print(f"accuracy {correct.float().mean():.3f}")
        print("{steps} steps, {synchronisations} synchronisations, {bytes}".format(**sync.stats()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
