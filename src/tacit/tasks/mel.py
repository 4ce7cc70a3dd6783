"""Log-mel features of speech at 8 kHz."""

from __future__ import annotations

import numpy as np

RATE = 8000
WINDOW = 200  # 25 ms
HOP = 80  # 10 ms
FFT = 256
BANDS = 40
FRAMES = 100
SAMPLES = WINDOW + HOP * (FRAMES - 1)  # 8,120: just over a second
#: Added to the power in each band, so that silence is finite: the loudest sound is about 1e3.
FLOOR = 1e-6

_CHUNK = 100  # recordings transformed together: keeps the spectra to some ten megabytes


def log_mel(waves: np.ndarray) -> np.ndarray:
    """The natural logarithm of the power in 40 bands: (n, SAMPLES) in [-1, 1] -> (n, FRAMES, BANDS)
    float32. Frames are weighted by a Hann window."""
    window = np.hanning(WINDOW + 1)[:-1]
    features = np.empty((len(waves), FRAMES, BANDS), np.float32)
    for start in range(0, len(waves), _CHUNK):
        chunk = waves[start : start + _CHUNK]
        frames = np.lib.stride_tricks.sliding_window_view(chunk, WINDOW, axis=1)[:, ::HOP]
        spectrum = np.fft.rfft(frames * window, FFT)
        power = spectrum.real**2 + spectrum.imag**2
        features[start : start + _CHUNK] = np.log(power @ filters() + FLOOR)
    return features


def filters() -> np.ndarray:
    """Triangles that overlap by half, their corners evenly spaced from 0 to 4 kHz on the mel scale
    2595 log10(1 + f / 700): (FFT / 2 + 1, BANDS), peaks at most 1."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(FFT, 1 / RATE)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    weights: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return weights
