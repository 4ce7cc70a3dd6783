"""Digits without a server; one worker sends nonsense, and is gone after half of the steps.

torchrun --standalone --nproc-per-node 6 examples/monna.py
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import tacit
from tacit.tasks import Task, load

STEPS = 150


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    digits = load("digits")

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    task = Task("mine", digits.train, digits.test, model, torch.optim.SGD, batch_size=32)
    # of 6 workers any 1 may say anything or nothing: nobody waits for more than 5, itself included
    recipe = tacit.monna(f=1, momentum=0.9, lr=0.3)
    simulation = tacit.Simulation(task, recipe, tacit.ProcessGroupFleet())
    own = simulation.replicas.parameters  # (1, d): this process hosts one worker
    for step in range(1, STEPS + 1):
        if rank == 5 and step == STEPS // 2:
            break  # until then it lies, as below; a worker that is gone is a silent one
        if rank == 5:
            own.normal_()
        simulation.step()

    module = simulation.replicas.show(own[0], simulation.replicas.buffers[0])
    with torch.no_grad():
        logits = module(digits.test.inputs)
    right = (logits.argmax(1) == digits.test.targets).float().mean()
    print(f"worker {rank}: {simulation.steps} steps, accuracy {right:.3f}, "
          f"loss {F.cross_entropy(logits, digits.test.targets):.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
