"""Recurrent networks for text and speech. They start every sample from zero states."""

from __future__ import annotations

from torch import Tensor, nn


class CharLSTM(nn.Module):
    """Characters (b, t) int64 -> logits of the next ones (b, t, characters). 243,969 parameters.

    Embedding of 64, two layers of 128 (those of karpathy/char-rnn), linear.
    """

    def __init__(self, characters: int = 65, embedding: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True)
        self.output = nn.Linear(hidden, characters)

    def forward(self, text: Tensor) -> Tensor:
        logits: Tensor = self.output(self.lstm(self.embedding(text))[0])
        return logits


class GRU(nn.Module):
    """Frames (b, t, bands) -> logits (b, classes), from the mean of one layer's states over time.
    66,570 parameters."""

    def __init__(self, bands: int = 40, hidden: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.gru = nn.GRU(bands, hidden, batch_first=True)
        self.output = nn.Linear(hidden, classes)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.output(self.gru(frames)[0].mean(dim=1))
        return logits
