"""Next-character prediction on tiny Shakespeare (karpathy/char-rnn), from one text file."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.errors import UserError
from tacit.tasks.data import TensorData
from tacit.tasks.files import folder_of, one_line

FILE = "tinyshakespeare.txt"
#: Fixed, so that numbers do not depend on the file: the 65 characters of the text, in ASCII order.
CHARACTERS = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase
WINDOW = 64
TRAINING_SHARE = 0.9


def load_shakespeare(data: str | Path | None = None) -> tuple[TensorData, TensorData]:
    """Windows of the first 90 % of the text (15,685 of them), and of the rest (1,742).

    Windows follow each other without overlap, in the order of the text: inputs (b, 64) int64, and
    as targets (b, 64) int64 the character after each. A last window that is not full is left out.
    Raises UserError without the file ``text/tinyshakespeare.txt`` in the folder, and for one with
    other characters or with less than a window in a part.
    """
    file = folder_of("text", data) / FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({one_line(error)}); check --data") from None
    text = encode(content, file)
    cut = int(TRAINING_SHARE * len(text))
    return _windows(text[:cut], file), _windows(text[cut:], file)


def encode(content: bytes, file: Path) -> np.ndarray:
    """The number of each character in CHARACTERS, (n,) int64. Raises UserError, naming ``file``."""
    table = np.full(256, -1, np.int64)
    table[np.frombuffer(CHARACTERS.encode("ascii"), np.uint8)] = np.arange(len(CHARACTERS))
    text: np.ndarray = table[np.frombuffer(content, np.uint8)]
    if (text < 0).any():
        place = int(np.argmax(text < 0))
        raise UserError(
            f"{file}: byte {place} is {content[place : place + 1]!r}, not one of the "
            f"{len(CHARACTERS)} characters of tiny Shakespeare; is this the right file?"
        )
    return text


def character_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy per character, in nats: logits (b, t, V), targets (b, t) -> scalar."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def character_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of characters in each window whose logit is the largest: (b, t, V) and (b, t) ->
    (b,) float32. Summed over windows and divided by their number, this is the accuracy."""
    return (outputs.argmax(dim=-1) == targets).to(torch.float32).mean(dim=-1)


def _windows(text: np.ndarray, file: Path) -> TensorData:
    count = (len(text) - 1) // WINDOW
    if count < 1:
        raise UserError(f"{file} is too short: each part needs {WINDOW + 1} characters")
    size = count * WINDOW
    inputs, targets = (text[start : start + size].reshape(count, WINDOW) for start in (0, 1))
    return TensorData(torch.from_numpy(inputs), torch.from_numpy(targets.copy()))
