"""Digits, with DDP and Deep Gradient Compression as its communication hook.

torchrun --standalone --nproc-per-node 2 examples/ddp_dgc.py
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tacit.hooks import DGCState, dgc_hook
from tacit.tasks import load


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    digits = load("digits")
    dataset = TensorDataset(digits.train.inputs, digits.train.targets)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model = DistributedDataParallel(model)
    # the momentum is the hook's, so the optimizer has none
    state = DGCState(density=0.01, momentum=0.9, warmup_steps=66, model=model)
    model.register_comm_hook(state, dgc_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    state.check(optimizer)

    for epoch in range(15):
        sampler.set_epoch(epoch)
        for x, y in loader:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    correct = model(digits.test.inputs).argmax(1) == digits.test.targets
    if dist.get_rank() == 0:
        # both workers would send and receive four bytes a parameter
        dense = 2 * 2 * 4 * state.steps * sum(p.numel() for p in model.parameters())
        less = dense / sum(state.stats()["bytes"].values())
        print(f"accuracy {correct.float().mean():.3f}")
        print(f"{less:.1f} times fewer bytes than dense gradients")
    del model  # before the group: its threads need Python to end
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
