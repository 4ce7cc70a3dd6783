"""Two islands of two processes: gradients inside, every step; models across, when they must.

    torchrun --standalone --nproc-per-node 4 examples/islands.py
    torchrun --standalone --nproc-per-node 4 examples/islands.py --ddp

An island is what a fast network joins: the GPUs of a machine, or the machines of one site. With
``--ddp`` DistributedDataParallel averages the gradients inside, otherwise Tacit does.
"""

import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tacit
from tacit.tasks import load


def main() -> None:
    # ranks 0 and 1 are one island, 2 and 3 the other; a replica is a model that an island trains
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "island"))
    torch.manual_seed(0)
    digits = load("digits")
    dataset = TensorDataset(digits.train.inputs, digits.train.targets)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if "--ddp" in sys.argv[1:]:
        model = DistributedDataParallel(model, process_group=mesh["island"].get_group())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    sync = tacit.attach(
        model, optimizer, tacit.fda(theta=1.0), mesh["replica"], island=mesh["island"]
    )

    for epoch in range(15):
        sampler.set_epoch(epoch)
        for x, y in loader:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    sync.finish()

    correct = model(digits.test.inputs).argmax(1) == digits.test.targets
    if dist.get_rank() == 0:
        print(f"accuracy {correct.float().mean():.3f}")
        print("{steps} steps, {synchronisations} synchronisations, {bytes}".format(**sync.stats()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
