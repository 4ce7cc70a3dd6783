"""Digits, attached: torchrun --standalone --nproc-per-node 2 examples/attach.py"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tacit
from tacit.tasks import load


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    digits = load("digits")
    dataset = TensorDataset(digits.train.inputs, digits.train.targets)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    sync = tacit.attach(model, optimizer, tacit.fda(theta=1.0))

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
