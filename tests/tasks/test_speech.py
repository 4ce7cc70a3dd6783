from __future__ import annotations

import io
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tacit.errors import MissingExtra, UserError
from tacit.rng import scoped
from tacit.tasks.groups import by_group
from tacit.tasks.mel import BANDS, FLOOR, FRAMES, RATE, SAMPLES, filters, log_mel
from tacit.tasks.registry import load
from tacit.tasks.speech import load_fsdd
from tacit.tasks.task import parameter_groups

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def tone(frequency: float, samples: int = SAMPLES) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((samples * 32768).astype("<i2").tobytes())
    return stream.getvalue()


def write(file: Path, sounds: list[Any], labels: list[Any], speakers: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": sound, "path": None} for sound in sounds]
    parquet.write_table(pa.table({"audio": audio, "label": labels, "speaker": speakers}), file)


@pytest.fixture
def fsdd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two digits, a low and a high tone, by three speakers of different loudness."""
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    sounds, labels, speakers = [], [], []
    for number in range(24):
        label, speaker = number % 2, number // 2 % 3
        clean = tone(300 if label == 0 else 1200, int(rng.integers(2000, 9000)))
        noisy = clean / (1 + speaker) + 0.02 * rng.standard_normal(len(clean))
        sounds.append(wav(noisy))
        labels.append(label)
        speakers.append(("theo", "george", "lucas")[speaker])
    write(tmp_path / "data/fsdd/train-00000-of-00001.parquet", sounds, labels, speakers)
    write(tmp_path / "data/fsdd/test-00000-of-00001.parquet", sounds[:6], labels[:6], speakers[:6])
    return tmp_path / "data"


def test_filters_overlap_by_half_and_leave_no_band_empty() -> None:
    weights = filters()
    assert weights.shape == (129, BANDS)
    assert (weights >= 0).all()
    assert (weights <= 1).all()
    assert (weights.sum(axis=0) > 0.5).all()
    bins = np.fft.rfftfreq(256, 1 / RATE)
    covered = weights[(bins > 60) & (bins < 3700)].sum(axis=1)
    np.testing.assert_allclose(covered, 1.0)  # neighbours sum to one


@pytest.mark.parametrize("frequency", [250, 440, 1000, 2500, 3500])
def test_a_tone_is_loudest_in_the_band_of_its_pitch(frequency: float) -> None:
    features = log_mel(tone(frequency)[None])
    assert features.shape == (1, FRAMES, BANDS)
    assert features.dtype == np.float32
    mel = 2595 * np.log10(1 + frequency / 700)
    nearest = mel / (2595 * np.log10(1 + 4000 / 700)) * (BANDS + 1) - 1
    loudest = features[0, 10].argmax()
    assert abs(loudest - nearest) <= 1
    assert (features[0].argmax(axis=1) == loudest).all()


def test_silence_is_finite_and_frames_come_every_ten_milliseconds() -> None:
    waves = np.zeros((2, SAMPLES), np.float32)
    waves[1, 4000:] = tone(1000)[4000:]
    features = log_mel(waves)
    np.testing.assert_allclose(features[0], np.log(FLOOR), rtol=1e-6)
    heard = features[1].max(axis=1) > np.log(FLOOR) + 1
    # frame i covers samples 80 i to 80 i + 200
    assert not heard[: 3800 // 80].any()
    assert heard[4000 // 80 :].all()


def test_many_recordings_are_transformed_as_one_is() -> None:
    waves = np.random.default_rng(0).uniform(-1, 1, (103, SAMPLES)).astype(np.float32)
    features = log_mel(waves)
    np.testing.assert_allclose(features[102], log_mel(waves[102:])[0], rtol=1e-6)


def test_features_are_normalised_by_the_training_data(fsdd: Path) -> None:
    train, test = load_fsdd(fsdd)
    inputs, targets = train.batch(np.arange(24))
    assert inputs.shape == (24, FRAMES, BANDS)
    assert inputs.dtype == torch.float32
    assert targets.tolist() == [0, 1] * 12
    assert inputs.mean((0, 1)).abs().max() < 1e-4
    torch.testing.assert_close(
        inputs.std((0, 1), correction=0), torch.ones(BANDS), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(test.batch(np.arange(6))[0], inputs[:6])


def test_groups_are_the_speakers_by_name(fsdd: Path) -> None:
    train, _ = load_fsdd(fsdd)
    assert train.groups[:6].tolist() == [2, 2, 0, 0, 1, 1]
    parts = by_group(train.groups.numpy(), 3)
    assert [len(part) for part in parts] == [8, 8, 8]
    assert parts[0][:4].tolist() == [2, 3, 8, 9]


def test_second_load_comes_from_the_cache(fsdd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_fsdd(fsdd)[0]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    second = load_fsdd(fsdd / "fsdd")[0]
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)
    assert torch.equal(first.groups, second.groups)
    monkeypatch.setenv("TACIT_CACHE", str(fsdd / "other"))
    with pytest.raises(MissingExtra, match=r"pyarrow .* 'tacit\[data\]'"):
        load_fsdd(fsdd)


def test_gru_learns_the_digits(fsdd: Path) -> None:
    task = load("fsdd", data=fsdd)
    with scoped(0, "model"):
        model = task.model()
    optimizer = task.optimizer(parameter_groups(task, model))
    inputs, targets = task.train.batch(np.arange(24))
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert task.correct(model(inputs), targets).float().mean() > 0.9


GOOD = wav(tone(440, 800))


@pytest.mark.parametrize(
    ("sounds", "label", "speaker", "message"),
    [
        ([GOOD, b"junk"], 1, "theo", "row 1 is not a WAV file"),
        ([None], 1, "theo", "row 0 is not a WAV file"),
        ([wav(tone(440, 800), rate=16000)], 1, "theo", "1 channels of 16 bits at 16000 Hz"),
        ([wav(tone(440, 800), channels=2)], 1, "theo", "2 channels of 16 bits"),
        ([wav(tone(440, 800), width=1)], 1, "theo", "1 channels of 8 bits"),
        ([GOOD], 10, "theo", "row 0 is digit 10 by 'theo'; a digit is a whole number"),
        ([GOOD], None, "theo", "row 0 is digit None"),
        ([GOOD], 1, None, "by None"),
        ([], 1, "theo", "has no rows"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, sounds, label, speaker, message) -> None:
    count = len(sounds)
    write(tmp_path / "train-0.parquet", sounds, [label] * count, [speaker] * count)
    with pytest.raises(UserError, match=message) as caught:
        load_fsdd(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_folders_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train-\*\.parquet in .*--data or TACIT_DATA"):
        load_fsdd(tmp_path)
    (tmp_path / "train-0.parquet").write_text("junk")
    with pytest.raises(UserError, match="read as parquet"):
        load_fsdd(tmp_path)
    parquet.write_table(pa.table({"label": [1]}), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match=r"no column audio or speaker \(it has label\)"):
        load_fsdd(tmp_path)


@pytest.mark.usefixtures("real_data")
def test_real_fsdd() -> None:
    train, test = load_fsdd()
    assert (len(train), len(test)) == (2700, 300)
    assert train.labels.bincount().tolist() == [270] * 10
    assert train.groups.bincount().tolist() == [450] * 6
    assert test.groups.bincount().tolist() == [50] * 6
    assert [len(part) for part in by_group(train.groups.numpy(), 6)] == [450] * 6
    assert train.inputs.isfinite().all()
    assert test.inputs.std().item() == pytest.approx(1.0, abs=0.05)
