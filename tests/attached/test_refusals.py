"""What attach refuses, and what it leaves as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import tacit
from helpers.spawn import run_processes
from tacit.errors import UserError


def refused(_: int, case: str) -> tuple[str, bool]:
    """The message, and whether the parameters lie where they lay."""
    module = nn.Linear(4, 3)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    recipe, options = tacit.fda(1.0), {}
    match case:
        case "another model":
            optimizer = torch.optim.SGD(nn.Linear(4, 3).parameters(), lr=0.1)
        case "half precision":
            module.half()
        case "nothing to train":
            module.requires_grad_(False)
        case "sampling":
            recipe = tacit.fedavg(fraction=0.5)
        case "serial":
            recipe = tacit.serial()
        case "epochs":
            recipe = tacit.fedavg()
        case "used":
            tacit.attach(module, optimizer, recipe).detach()
        case "twice":
            tacit.attach(module, optimizer, tacit.fda(1.0))
        case "lbfgs":
            optimizer = torch.optim.LBFGS(module.parameters())
            recipe = tacit.synchronous()
        case "island":
            recipe = tacit.synchronous()
            options = {"island": torch.distributed.group.WORLD}
        case "compressed island":
            recipe = tacit.ef21()
            options = {"island": torch.distributed.group.WORLD}
        case "momentum":
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
            recipe = tacit.dgc()
        case "moments":
            optimizer = torch.optim.Adam(module.parameters())
            recipe = tacit.dgc()
        case "warm-up":
            recipe = tacit.dgc(warmup=2)
        case "smoothness":
            recipe = tacit.ef21_w(smoothness="1/2")
        case "initial":
            options = {"initial": "guess"}
        case "no folder" | "too late":
            pass
    before = [p.data_ptr() for p in module.parameters()]
    message = ""
    try:
        sync = tacit.attach(module, optimizer, recipe, **options)
        if case == "too late":
            sync.finish()
        sync.save()
    except UserError as error:
        message = str(error)
    return message, before == [p.data_ptr() for p in module.parameters()]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("another model", "not the model's; give attach the model"),
        ("half precision", "weight is torch.float16; parameters must be float32"),
        ("nothing to train", "no parameters that require a gradient"),
        ("sampling", "use fraction=1"),
        ("serial", "stands for one learner that has everybody's data"),
        ("epochs", "averages every few epochs; say how many steps one has"),
        ("used", "this fda recipe belongs to another run"),
        ("twice", "attached already"),
        ("lbfgs", "LBFGS evaluates gradients by itself"),
        ("island", "synchronous exchanges gradients"),
        ("compressed island", "ef21 exchanges gradients; with islands use a recipe that averages"),
        ("momentum", "dgc has the momentum in its memory; set the optimizer's to 0"),
        ("moments", "Adam has moments of its own; use torch.optim.SGD"),
        ("warm-up", "a warm-up counts epochs; say attach(..., steps_per_epoch=...)"),
        ("smoothness", "2 smoothness constants for 1 workers"),
        ("initial", "initial is broadcast or check, not 'guess'"),
        ("no folder", "checkpoint=FOLDER"),
        ("too late", "no longer attached"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_changed(case: str, message: str) -> None:
    ((told, unmoved),) = run_processes(refused, 1, case)
    assert message in told
    assert "\n" not in told
    assert unmoved is (case != "no folder")


def test_without_a_process_group() -> None:
    module = nn.Linear(4, 3)
    with pytest.raises(UserError, match="call init_process_group first"):
        tacit.attach(module, torch.optim.SGD(module.parameters(), lr=0.1), tacit.fda(1.0))


def lbfgs(worker: int) -> Any:
    torch.manual_seed(worker)
    module = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.5, max_iter=3)
    x = torch.randn(20, 4)
    y = x.sum(1, keepdim=True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(x), y)
        loss.backward()
        return loss

    with tacit.attach(module, optimizer, tacit.local_sgd(2)) as sync:
        for _ in range(6):
            optimizer.step(closure)
    return sync.synchronisations, module.weight.detach().clone()


def test_lbfgs_with_averaged_models() -> None:
    (first, weight), (_, other) = run_processes(lbfgs, 2)
    assert first == 3
    assert torch.equal(weight, other)
    torch.testing.assert_close(weight, torch.ones(1, 4), rtol=0, atol=0.05)
