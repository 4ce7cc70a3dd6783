from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tacit.errors import UserError
from tacit.evaluation import examine
from tacit.rng import scoped
from tacit.tasks.models import CharLSTM
from tacit.tasks.registry import TASKS, load
from tacit.tasks.task import parameter_groups
from tacit.tasks.text import CHARACTERS, character_correct, character_loss, load_shakespeare


def write(folder: Path, content: bytes) -> Path:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "tinyshakespeare.txt").write_bytes(content)
    return folder


def decode(numbers: torch.Tensor) -> str:
    return "".join(CHARACTERS[number] for number in numbers.flatten().tolist())


def test_targets_are_the_next_characters(tmp_path: Path) -> None:
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 30
    folder = write(tmp_path, text.encode())
    train, test = load_shakespeare(folder)
    cut = int(0.9 * len(text))
    for data, part in ((train, text[:cut]), (test, text[cut:])):
        inputs, targets = data.batch(np.arange(len(data)))
        assert inputs.shape == targets.shape == ((len(part) - 1) // 64, 64)
        assert inputs.dtype == targets.dtype == torch.int64
        size = inputs.numel()
        assert decode(inputs) == part[:size]
        assert decode(targets) == part[1 : size + 1]
        assert data.labels is None
    assert len(load_shakespeare(folder / "text")[0]) == len(train)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a" * 700 + b"\xe9" + b"a" * 700, r"txt: byte 700 is b'\\xe9', not one of the 65"),
        (b"a" * 300, "is too short: each part needs 65 characters"),
        (b"", "is too short"),
    ],
)
def test_bad_texts_say_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_shakespeare(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_missing_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"tinyshakespeare.txt cannot be read \(.*check --data"):
        load_shakespeare(tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        load_shakespeare(tmp_path / "nowhere")
    monkeypatch.delenv("TACIT_DATA", raising=False)
    with pytest.raises(UserError, match="text: no data folder; give one by --data DIR, or set"):
        load_shakespeare()


def test_loss_and_share_of_right_characters() -> None:
    with scoped(0, "outputs"):
        outputs, targets = torch.randn(5, 8, 65), torch.randint(65, (5, 8))
    plain = torch.stack([F.cross_entropy(o, t) for o, t in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(character_loss(outputs, targets), plain.mean())
    targets[0], targets[1, :2] = outputs[0].argmax(-1), outputs[1, :2].argmax(-1)
    right = character_correct(outputs, targets)
    assert right.shape == (5,)
    assert right.dtype == torch.float32
    assert right[0] == 1.0
    assert 0.25 <= right[1] <= 1.0
    by_hand = (outputs.argmax(-1) == targets).float().mean(1)
    torch.testing.assert_close(torch.vmap(character_correct)(outputs[:, None], targets[:, None]),
                               by_hand[:, None])  # fmt: skip


def test_no_state_passes_between_windows() -> None:
    with scoped(0, "model"):
        model = CharLSTM()
    text = torch.arange(3 * 64).reshape(3, 64) % 65
    together = model(text)
    assert together.shape == (3, 64, 65)
    torch.testing.assert_close(together[1:2], model(text[1:2]))
    changed = text.clone()
    changed[0, 40:] = 0
    torch.testing.assert_close(model(changed)[0, :40], together[0, :40])
    assert not torch.allclose(model(changed)[0, 41], together[0, 41])


def test_learns_a_short_text_and_can_be_examined(tmp_path: Path) -> None:
    task = load("shakespeare", data=write(tmp_path, b"To be, or not to be: " * 200))
    with scoped(0, "model"):
        model = task.model()
    optimizer = task.optimizer(parameter_groups(task, model))
    losses = []
    for step in range(15):
        inputs, targets = task.train.batch(np.arange(8) + 8 * (step % 7))
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(65), rel=0.05)
    assert losses[-1] < 0.8 * losses[0]
    count = len(task.test)
    loss, correct = examine(model, task, task.test, range(count), torch.device("cpu"))
    assert 0 < correct <= count
    assert loss / count < losses[0]


@pytest.mark.usefixtures("real_data")
def test_real_shakespeare() -> None:
    train, test = load_shakespeare()
    assert (len(train), len(test)) == (15_685, 1_742)
    assert decode(train.batch(np.array([0]))[0]).startswith("First Citizen:\nBefore we proceed")
    assert len(train.inputs.unique()) == len(CHARACTERS)
    assert TASKS["shakespeare"].models == ("char-lstm",)
