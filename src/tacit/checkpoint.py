"""Checkpoints: a tree of tensors, arrays, numbers and text in a file, without pickle.

A file is a magic word, a JSON outline in which every tensor is a number, the tensors as messages of
:mod:`tacit.wire`, and a checksum. A checkpoint is a folder: one file for what all workers share,
one for each worker, so that any layout of processes can read it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit import wire
from tacit.errors import PeerError, UserError
from tacit.fleet import Fleet

_MAGIC = b"TACITCK1"

#: How long survivors of a failure wait for each other's files, in seconds.
_PATIENCE = 10.0


def save(path: Path, tree: Any) -> None:
    """Write a tree of dictionaries, lists and tuples, whole or not at all.

    Keys: text, numbers. Leaves: tensors, NumPy arrays, numbers, text, truth values, None.
    """
    tensors: list[bytes] = []
    outline = json.dumps(_outline(tree, tensors)).encode()
    body = b"".join([_MAGIC, struct.pack("<Q", len(outline)), outline, *tensors])
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(body)
        file.write(struct.pack("<I", zlib.crc32(body)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path) -> Any:
    """Read what :func:`save` wrote. Raises UserError for a missing or damaged file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"the checkpoint has no {path}") from None
    damaged = UserError(f"{path} is damaged; delete it and resume from another checkpoint")
    body, checksum = content[:-4], content[-4:]
    if not body.startswith(_MAGIC) or struct.pack("<I", zlib.crc32(body)) != checksum:
        raise damaged
    try:
        (length,) = struct.unpack_from("<Q", body, len(_MAGIC))
        start = len(_MAGIC) + 8 + length
        outline = json.loads(body[start - length : start])
        tensors = []
        while start < len(body):
            tensor, start = wire.decode_from(body, start, str(path))
            tensors.append(tensor)
        return _rebuild(outline, tensors)
    except (struct.error, json.JSONDecodeError, PeerError, IndexError):
        raise damaged from None


def _outline(tree: Any, tensors: list[bytes]) -> Any:
    if isinstance(tree, torch.Tensor | np.ndarray):
        kind = "array" if isinstance(tree, np.ndarray) else "tensor"
        tensors.append(wire.encode(torch.as_tensor(tree)))
        return {f"${kind}": len(tensors) - 1}
    if isinstance(tree, Mapping) and not all(isinstance(key, str) for key in tree):
        return {"$pairs": [[key, _outline(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, Mapping):
        return {key: _outline(value, tensors) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return {"$tuple": [_outline(value, tensors) for value in tree]}
    if isinstance(tree, list):
        return [_outline(value, tensors) for value in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a checkpoint cannot hold a {type(tree).__name__}")


def _rebuild(outline: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(outline, list):
        return [_rebuild(value, tensors) for value in outline]
    if not isinstance(outline, dict):
        return outline
    match outline:
        case {"$tensor": number}:
            return tensors[number]
        case {"$array": number}:
            return tensors[number].numpy()
        case {"$pairs": pairs}:
            return {key: _rebuild(value, tensors) for key, value in pairs}
        case {"$tuple": values}:
            return tuple(_rebuild(value, tensors) for value in values)
    return {key: _rebuild(value, tensors) for key, value in outline.items()}


# -- a folder with one file a worker


def write_folder(
    folder: Path, step: int, fleet: Fleet, shared: Any, workers: Mapping[int, Any]
) -> None:
    """Every process calls this with its hosted workers' states. The folder ``folder/step-N``
    appears when all files are there; ``latest`` then names it, and older ones are deleted."""
    building = folder / f".step-{step:09d}.tmp"
    if fleet.leader:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
    fleet.barrier()
    for worker, state in workers.items():
        save(_worker_file(building, worker), state)
    fleet.barrier()
    if fleet.leader:
        _publish(folder, step, building, shared)
    fleet.barrier()


def write_remains(
    folder: Path,
    step: int,
    attempt: str,
    worker: int,
    state: Any,
    shared: Any,
    survivors: Sequence[int],
) -> Path | None:
    """After a failure, without talking: every survivor writes its file, and the first of them
    publishes the checkpoint once all are there. Where it is; None if somebody did not write.

    ``attempt``: a name that only these survivors use. A whole checkpoint is kept beside it; one of
    the same step, or of a later one, is worth more, and stays the latest.
    """
    final = folder / f"step-{step:09d}"
    newest = latest(folder)
    if newest is not None and newest >= final.name:
        return folder / newest
    building = folder / f".step-{step:09d}.{attempt}.tmp"
    building.mkdir(parents=True, exist_ok=True)
    save(_worker_file(building, worker), state)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if worker != min(survivors):
            if final.exists():
                return final
        elif all(_worker_file(building, other).exists() for other in survivors):
            return _publish(folder, step, building, shared, tidy=False)
        time.sleep(0.05)
    return None


def _publish(folder: Path, step: int, building: Path, shared: Any, tidy: bool = True) -> Path:
    save(building / "shared.tacit", shared)
    final, former = folder / f"step-{step:09d}", folder / f".step-{step:09d}.former"
    if final.exists():
        shutil.rmtree(former, ignore_errors=True)
        final.rename(former)
    building.rename(final)
    shutil.rmtree(former, ignore_errors=True)
    pointer = folder / ".latest.tmp"
    pointer.write_text(final.name)
    os.replace(pointer, folder / "latest")
    for other in [*folder.glob("step-*"), *folder.glob(".step-*")] if tidy else []:
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def latest(folder: Path) -> str | None:
    """The name of the latest checkpoint in ``folder``."""
    try:
        return (folder / "latest").read_text().strip()
    except FileNotFoundError:
        return None


def open_folder(folder: Path) -> tuple[Any, dict[int, Path]]:
    """The latest checkpoint: what is shared, and each worker's file."""
    name = latest(folder)
    if name is None:
        raise UserError(f"there is no checkpoint in {folder}; run with --checkpoint-every")
    files = (folder / name).glob("worker-*.tacit")
    workers = {int(path.stem.removeprefix("worker-")): path for path in files}
    return load(folder / name / "shared.tacit"), workers


def read_folder(folder: Path, workers: Iterable[int]) -> tuple[Any, dict[int, Any]]:
    """The latest checkpoint: what is shared, and the states of these workers."""
    shared, _ = open_folder(folder)
    final = folder / str(latest(folder))
    return shared, {k: load(_worker_file(final, k)) for k in workers}


def _worker_file(folder: Path, worker: int) -> Path:
    return folder / f"worker-{worker:05d}.tacit"
