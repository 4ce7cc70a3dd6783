"""Gradient accumulation and mixed precision: two batches a step, float16 and a GradScaler.

    torchrun --standalone --nproc-per-node 2 examples/accumulate_amp.py

A GradScaler skips a step whose gradient overflowed, each worker its own. ``attach`` is given the
scaler, so that a worker that skips still takes part in the exchange.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tacit
from tacit.tasks import load

ACCUMULATE = 2


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    digits = load("digits")
    dataset = TensorDataset(digits.train.inputs, digits.train.targets)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler, drop_last=True)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    # far too high at first: the first steps overflow, as they may in a real job
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    sync = tacit.attach(model, optimizer, tacit.fda(theta=1.0), scaler=scaler)

    for epoch in range(15):
        sampler.set_epoch(epoch)
        for i, (x, y) in enumerate(loader, start=1):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.cross_entropy(model(x), y) / ACCUMULATE
            scaler.scale(loss).backward()
            if i % ACCUMULATE == 0:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        scheduler.step()
    sync.finish()

    correct = model(digits.test.inputs).argmax(1) == digits.test.targets
    if dist.get_rank() == 0:
        print(f"accuracy {correct.float().mean():.3f}, scale {scaler.get_scale():g}")
        print("{steps} steps, {synchronisations} synchronisations, {bytes}".format(**sync.stats()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
