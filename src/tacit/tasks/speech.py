"""The Free Spoken Digit Dataset (Jakobovski et al.): ten digits by six speakers, as parquet files.

Columns: ``audio`` (a struct {bytes, path}: a WAV file, mono, 8 kHz, 16 bit), ``label`` (0 to 9) and
``speaker`` (a name). Features are cached in the folder TACIT_CACHE (by default ~/.cache/tacit).
"""

from __future__ import annotations

import hashlib
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.errors import MissingExtra, UserError
from tacit.tasks.cache import cached
from tacit.tasks.files import folder_of, one_line
from tacit.tasks.groups import GroupedData
from tacit.tasks.mel import FLOOR, RATE, SAMPLES, log_mel

DIGITS = 10
COLUMNS = ("audio", "label", "speaker")


def load_fsdd(data: str | Path | None = None) -> tuple[GroupedData, GroupedData]:
    """Train (2,700) and test (300): inputs (b, 100, 40) float32, targets (b,) int64; ``groups`` are
    the speakers, numbered by name.

    Inputs are log-mel frames of the first 1.015 s, silence appended to shorter recordings,
    normalised per band by the mean and deviation of the training data. Order as in the files.
    Raises UserError for missing or bad files, MissingExtra without pyarrow.
    """
    folder = folder_of("fsdd", data)
    parts = [_from_files(sorted(folder.glob(f"{split}-*.parquet")), folder, split)
             for split in ("train", "test")]  # fmt: skip
    frames = parts[0][0].reshape(-1, parts[0][0].shape[2])
    mean, deviation = frames.mean(axis=0, dtype=np.float64), frames.std(axis=0, dtype=np.float64)
    train, test = (
        GroupedData(
            torch.from_numpy(((features - mean) / (deviation + FLOOR)).astype(np.float32)),
            torch.from_numpy(np.ascontiguousarray(marks[:, 0])),
            torch.from_numpy(np.ascontiguousarray(marks[:, 1])),
        )
        for features, marks in parts
    )
    return train, test


def _from_files(files: list[Path], folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel features (n, frames, bands), and digits and speakers (n, 2) int64."""
    if not files:
        raise UserError(
            f"no {split}-*.parquet in {folder}; put the files of fsdd there, or give another "
            "folder by --data or TACIT_DATA"
        )
    marks = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.blake2b(repr(marks).encode(), digest_size=8).hexdigest()
    return cached(f"fsdd-{digest}", lambda: _read_files(files))


def _read_files(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    waves, labels, speakers = [], [], []
    for file in files:
        try:
            table = parquet.read_table(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read as parquet ({one_line(error)})") from None
        missing = set(COLUMNS) - set(table.column_names)
        if missing:
            raise UserError(
                f"{file} has no column {' or '.join(sorted(missing))} (it has "
                f"{', '.join(table.column_names)}); is this fsdd?"
            )
        rows = zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True)
        for number, (audio, label, speaker) in enumerate(rows):
            waves.append(_samples(audio, f"{file}: row {number}"))
            if label not in range(DIGITS) or not isinstance(speaker, str):
                raise UserError(
                    f"{file}: row {number} is digit {label!r} by {speaker!r}; a digit is a whole "
                    f"number from 0 to {DIGITS - 1}, a speaker a name"
                )
            labels.append(label)
            speakers.append(speaker)
    if not waves:
        raise UserError(f"{files[0]} has no rows; is this fsdd?")
    numbers = np.unique(speakers, return_inverse=True)[1]
    marks = np.column_stack([np.array(labels, np.int64), numbers.astype(np.int64)])
    return log_mel(np.stack(waves)), marks


def _samples(audio: Any, where: str) -> np.ndarray:
    """The first second of a WAV file, (SAMPLES,) float32 in [-1, 1); shorter ones end in zeros."""
    content = audio.get("bytes") if isinstance(audio, dict) else audio
    try:
        with wave.open(io.BytesIO(content or b"")) as sound:
            form = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
            raw = sound.readframes(SAMPLES)
    except (wave.Error, EOFError, TypeError) as error:
        raise UserError(f"{where} is not a WAV file ({one_line(error)})") from None
    if form != (1, 16, RATE):
        raise UserError(
            f"{where} has {form[0]} channels of {form[1]} bits at {form[2]} Hz; "
            f"fsdd has one of 16 bits at {RATE} Hz"
        )
    heard = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")
    samples = np.zeros(SAMPLES, np.float32)
    samples[: len(heard)] = heard / np.float32(32768)
    return samples
