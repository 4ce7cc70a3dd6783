"""The package as a whole: its layers, and what its core needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tacit

SOURCE = Path(tacit.__file__).parent

#: From the bottom up. A module may import from its own layer and from those below.
LAYERS = [
    {"errors", "rng", "calls", "compiled", "jit"},
    {"wire", "codecs", "fleet", "setting", "sketches", "stacked"},
    {"tasks", "replicas"},
    {"optimizers"},
    {
        "triggers",
        "aggregators",
        "attacks",
        "compressors",
        "schedule",
        "topologies",
        "training",
        "evaluation",
        "checkpoint",
    },
    {"memory", "exchange"},
    {"compression", "download", "ways"},
    {"fitting"},
    {"saved_averaging", "late"},
    {"averaging", "gradients"},
    {"recipes"},
    {"journal"},
    {"saved"},
    {"simulate", "attached", "hooks"},
    {"config"},
    {"runs"},
    {"report", "runner", "launch"},
    {"cli", "__main__", "__init__"},
]

#: What only an extra brings.
EXTRAS = ["click", "rich", "plotly", "datasets", "pyarrow", "PIL", "sklearn", "numba"]


def _layer(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tacit"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tacit.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_lower_layers_never_import_upper_ones(path: Path) -> None:
    own = _layer(path.relative_to(SOURCE).parts[0].removesuffix(".py"))
    for name in _imports(path):
        if (SOURCE / name).exists() or (SOURCE / f"{name}.py").exists():
            assert _layer(name) <= own, f"{path.name} imports {name}"


def test_the_core_needs_torch_and_numpy_alone() -> None:
    """A simulation runs where every extra is missing."""
    program = f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None
import torch, tacit
from tacit.tasks import Task, TensorData
data = TensorData(torch.rand(64, 5), torch.randint(3, (64,)))
task = Task("t", data, data, lambda: torch.nn.Linear(5, 3), torch.optim.Adam)
for estimator in ("linear", "sketch"):
    recipe = tacit.fda(theta=1e-4, estimator=estimator)
    simulation = tacit.Simulation(task, recipe, tacit.LocalFleet(4))
    print(list(simulation.run(6))[-1].synchronisations)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(int(line) > 0 for line in done.stdout.split())


def test_everything_exported_exists_and_is_documented() -> None:
    for name in tacit.__all__:
        assert getattr(tacit, name).__doc__ or name == "RECIPES"
