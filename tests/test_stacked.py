"""One pass of many models is the pass of each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tacit.stacked import ELEMENTWISE, is_chain, stacked_losses

L, B = 5, 7


class Custom(nn.Module):
    """Not a chain: goes through vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x + torch.tanh(self.a(x)))


MODULES = {
    "one layer": lambda: nn.Linear(6, 3),
    "chain": lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)),
    "activations": lambda: nn.Sequential(*(layer() for layer in ELEMENTWISE), nn.Linear(6, 3)),
    "norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)),
    "custom": Custom,
}


def cubic(output: Tensor, y: Tensor) -> Tensor:
    return ((output.sum(dim=-1) - y) ** 3).mean()


@pytest.mark.parametrize("loss", [F.cross_entropy, cubic])
@pytest.mark.parametrize("name", MODULES)
def test_losses_and_gradients_are_those_of_each_model(name, loss) -> None:
    generator = torch.Generator().manual_seed(0)
    module = MODULES[name]()
    stacked = {
        n: torch.randn(L, *p.shape, generator=generator).requires_grad_()
        for n, p in module.named_parameters()
    }
    x = torch.randn(L, B, 6, generator=generator)
    y = torch.randint(3, (L, B), generator=generator)
    losses, outputs = stacked_losses(module, loss, stacked, x, y)
    assert losses.shape == (L,)
    assert outputs.shape == (L, B, 3)
    gradients = torch.autograd.grad(losses.sum(), list(stacked.values()))
    for k in range(L):
        own = {n: p[k].detach().requires_grad_() for n, p in stacked.items()}
        alone = loss(functional_call(module, own, (x[k],)), y[k])
        torch.testing.assert_close(losses[k], alone)
        expected = torch.autograd.grad(alone, list(own.values()))
        for gradient, one in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient[k], one, rtol=1e-4, atol=1e-5)


def test_what_is_a_chain() -> None:
    def given(module: nn.Module) -> dict[str, Tensor]:
        return {n: p.unsqueeze(0) for n, p in module.named_parameters() if p.requires_grad}

    chain = MODULES["chain"]()
    assert is_chain(chain, given(chain))
    for name in ("one layer", "norm", "custom"):
        module = MODULES[name]()
        assert not is_chain(module, given(module))
    shared = nn.Linear(6, 6)
    assert not is_chain(nn.Sequential(shared, shared), given(nn.Sequential(shared, shared)))
    frozen = MODULES["chain"]()
    frozen[0].bias.requires_grad_(False)
    assert not is_chain(frozen, given(frozen))
