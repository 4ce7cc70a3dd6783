"""Digits without a server; one worker sends nonsense, and is gone after half of the steps.

torchrun --standalone --nproc-per-node 6 examples/monna.py
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import tacit
from tacit.tasks import load

STEPS = 150


def main() -> None:
    dist.init_process_group("gloo")
    rank, workers = dist.get_rank(), dist.get_world_size()
    digits = load("digits")
    inputs, targets = digits.train.inputs[rank::workers], digits.train.targets[rank::workers]
    torch.manual_seed(rank)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    # of 6 workers any 1 may say anything or nothing: nobody waits for more than 5, itself included
    recipe = tacit.monna(f=1, momentum=0.9, lr=0.3)
    optimizer = recipe.optimizer(model.parameters())  # the published momentum; yours will do
    sync = tacit.attach(model, optimizer, recipe)

    for step in range(STEPS):
        if rank == 5 and step == STEPS // 2:
            return  # until then it lies, as below; a worker that is gone is a silent one
        batch = torch.randint(len(inputs), (32,))
        F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        if rank == 5:
            for p in model.parameters():
                nn.init.normal_(p)
        optimizer.step()
        optimizer.zero_grad()
    sync.finish()

    correct = model(digits.test.inputs).argmax(1) == digits.test.targets
    print(f"worker {rank}: {sync.steps} steps, accuracy {correct.float().mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
