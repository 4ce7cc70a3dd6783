"""MNIST and CIFAR-10, from a folder of parquet files or from the Hugging Face hub.

Samples keep the row order of the files: the partitions of the published experiments depend on it.
Decoded images are cached in the folder TACIT_CACHE (by default ~/.cache/tacit).
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tacit.errors import MissingExtra, UserError
from tacit.tasks.cache import cached
from tacit.tasks.data import TensorData


class ImageSet(NamedTuple):
    """Where a data set of images lies and what its rows look like."""

    name: str
    hub: str
    column: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int = 10


MNIST = ImageSet("mnist", "ylecun/mnist", "image", (1, 28, 28))
CIFAR10 = ImageSet("cifar10", "uoft-cs/cifar10", "img", (3, 32, 32))


def load_mnist(data: str | Path | None = None) -> tuple[TensorData, TensorData]:
    """Train (60,000) and test (10,000): inputs (b, 1, 28, 28) float32 in [0, 1]."""
    return _load(MNIST, data, scale)


def load_cifar10(data: str | Path | None = None) -> tuple[TensorData, TensorData]:
    """Train (50,000) and test (10,000): inputs (b, 3, 32, 32) float32, normalised by ImageNet's
    mean and deviation per channel as Keras' DenseNet preprocessing does."""
    return _load(CIFAR10, data, normalise)


def scale(pixels: Tensor) -> Tensor:
    """Bytes 0 to 255 as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255.0)


def normalise(pixels: Tensor) -> Tensor:
    """``scale``, then ImageNet's mean and standard deviation; pixels (b, 3, h, w)."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=pixels.device).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=pixels.device).view(3, 1, 1)
    return scale(pixels).sub_(mean).div_(deviation)


def _load(
    images: ImageSet, data: str | Path | None, transform: Callable[[Tensor], Tensor]
) -> tuple[TensorData, TensorData]:
    folder = data if data is not None else os.environ.get("TACIT_DATA") or None
    parts = []
    for split in ("train", "test"):
        if folder is None:
            pixels, labels = _from_hub(images, split)
        else:
            pixels, labels = _from_files(images, _parquet_files(images, Path(folder), split))
        parts.append(TensorData(torch.from_numpy(pixels), torch.from_numpy(labels), transform))
    return parts[0], parts[1]


def _parquet_files(images: ImageSet, folder: Path, split: str) -> list[Path]:
    """The files of ``split`` in ``folder``/name or, without such a subfolder, in ``folder``."""
    if not folder.is_dir():
        raise UserError(f"data folder {folder} does not exist; check --data or TACIT_DATA")
    inside = folder / images.name if (folder / images.name).is_dir() else folder
    files = sorted(inside.glob(f"{split}-*.parquet"))
    if not files:
        raise UserError(
            f"no {split}-*.parquet in {inside}; put the files of {images.hub} there, or give "
            "another folder by --data or TACIT_DATA"
        )
    return files


def _from_files(images: ImageSet, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    marks = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return cached(_key(images, marks), lambda: _read_files(images, files))


def _read_files(images: ImageSet, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    encoded: list[bytes | None] = []
    labels: list[int | None] = []
    for file in files:
        try:
            table = parquet.read_table(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read as parquet ({_one_line(error)})") from None
        missing = {images.column, "label"} - set(table.column_names)
        if missing:
            raise UserError(
                f"{file} has no column {' or '.join(sorted(missing))} (it has "
                f"{', '.join(table.column_names)}); is this {images.hub}?"
            )
        encoded += [_bytes_of(cell) for cell in table.column(images.column).to_pylist()]
        labels += table.column("label").to_pylist()
    return _decode(images, encoded, labels, str(files[0].parent))


def _from_hub(images: ImageSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "data") from None
    try:
        rows = datasets.load_dataset(images.hub, split=split)
    except Exception as error:
        # Whatever the hub's client raises (there is no common base class), the way out is the same.
        raise UserError(
            f"{images.hub} could not be loaded from the Hugging Face hub ({_one_line(error)}); "
            "give a folder of parquet files by --data DIR, or set TACIT_DATA"
        ) from None
    rows = rows.cast_column(images.column, datasets.Image(decode=False))

    def decode() -> tuple[np.ndarray, np.ndarray]:
        encoded = [_bytes_of(cell) for cell in rows[images.column]]
        return _decode(images, encoded, list(rows["label"]), images.hub)

    return cached(_key(images, [split, rows._fingerprint]), decode)


def _decode(
    images: ImageSet, encoded: list[bytes | None], labels: list[int | None], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """PNG or JPEG files as pixels (n, channels, height, width) uint8, and labels (n,) int64."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "data") from None
    channels, height, width = images.shape
    mode = "L" if channels == 1 else "RGB"
    pixels = np.empty((len(encoded), height, width, channels), dtype=np.uint8)
    for row, content in enumerate(encoded):
        try:
            picture = Image.open(io.BytesIO(content or b"")).convert(mode)
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{where}: row {row} is not an image ({_one_line(error)})") from None
        if picture.size != (width, height):
            raise UserError(
                f"{where}: the image in row {row} is {picture.size[0]}x{picture.size[1]}, not "
                f"{width}x{height}; is this {images.hub}?"
            )
        pixels[row] = np.asarray(picture).reshape(height, width, channels)
    known = range(images.classes)
    if any(label not in known for label in labels):
        raise UserError(f"{where}: a label is not a whole number from 0 to {known[-1]}")
    targets = np.array(labels, dtype=np.int64)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), targets


def _bytes_of(cell: Any) -> bytes | None:
    """The content of a cell of an image column: a struct {bytes, path}, or plain bytes."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None


def _key(images: ImageSet, marks: Iterable[object]) -> str:
    digest = hashlib.blake2b(repr(list(marks)).encode(), digest_size=8).hexdigest()
    return f"{images.name}-{digest}"


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
