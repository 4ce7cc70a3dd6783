from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tacit.errors import MissingExtra, UserError
from tacit.tasks import cache
from tacit.tasks.images import load_cifar10, load_mnist, normalise, scale

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TACIT_CACHE", str(folder))
    return folder


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def random_images(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


def write(file: Path, column: str, images: list[bytes], labels: list[int | None]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": image, "path": None} for image in images]
    parquet.write_table(pa.table({column: cells, "label": labels}), file)


@pytest.fixture
def mnist(tmp_path: Path, own_cache: Path) -> tuple[Path, np.ndarray]:
    """A folder with five training images in two files, and two test images."""
    pixels = random_images(7, (28, 28))
    images = [png(image) for image in pixels]
    folder = tmp_path / "data" / "mnist"
    write(folder / "train-00000-of-00002.parquet", "image", images[:3], [5, 0, 4])
    write(folder / "train-00001-of-00002.parquet", "image", images[3:5], [1, 9])
    write(folder / "test-00000-of-00001.parquet", "image", images[5:], [7, 2])
    return folder, pixels


def test_mnist_keeps_the_order_and_scales_to_one(mnist) -> None:
    folder, pixels = mnist
    train, test = load_mnist(folder)
    inputs, targets = train.batch(np.arange(5))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (5, 1, 28, 28)
    expected = torch.from_numpy(pixels[:5, None].astype(np.float32) / np.float32(255))
    assert torch.equal(inputs, expected)
    assert targets.tolist() == [5, 0, 4, 1, 9]
    assert test.labels.tolist() == [7, 2]


def test_folder_above_and_environment_work_too(mnist, monkeypatch) -> None:
    folder, _ = mnist
    assert len(load_mnist(folder.parent)[0]) == 5
    monkeypatch.setenv("TACIT_DATA", str(folder.parent))
    assert len(load_mnist()[0]) == 5


def test_cifar_is_normalised_per_channel(tmp_path: Path) -> None:
    pixels = random_images(3, (32, 32, 3))
    images = [png(image) for image in pixels]
    write(tmp_path / "train-0.parquet", "img", images, [3, 1, 9])
    write(tmp_path / "test-0.parquet", "img", images[:1], [3])
    inputs, targets = load_cifar10(tmp_path)[0].batch(np.array([2, 0]))
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(inputs.numpy(), expected[[2, 0]].transpose(0, 3, 1, 2), atol=1e-6)
    assert targets.tolist() == [9, 3]


def test_transforms_leave_the_stored_bytes_alone() -> None:
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    before = pixels.clone()
    scale(pixels)
    normalise(pixels)
    assert torch.equal(pixels, before)


def test_second_load_comes_from_the_cache(mnist, own_cache, monkeypatch) -> None:
    folder, _ = mnist
    first = load_mnist(folder)[0]
    assert not list(own_cache.glob("*.part"))
    assert len(list(own_cache.glob("*.npy"))) == 4
    monkeypatch.setitem(sys.modules, "PIL", None)
    second = load_mnist(folder)[0]
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)


def test_changed_file_is_read_again(mnist) -> None:
    folder, pixels = mnist
    load_mnist(folder)
    file = folder / "test-00000-of-00001.parquet"
    stamp = file.stat().st_mtime_ns
    write(file, "image", [png(image) for image in pixels[:2]], [3, 3])
    os.utime(file, ns=(stamp + 10**9, stamp + 10**9))
    assert load_mnist(folder)[1].labels.tolist() == [3, 3]


def test_damaged_cache_is_made_again(mnist, own_cache) -> None:
    folder, _ = mnist
    expected = load_mnist(folder)[0].inputs.clone()
    for damage in (lambda content: content[: len(content) // 2], lambda content: b""):
        for file in own_cache.glob("*.npy"):
            content = damage(file.read_bytes())
            file.unlink()
            file.write_bytes(content)
        assert torch.equal(load_mnist(folder)[0].inputs, expected)


def test_cache_that_cannot_be_written_is_no_error(mnist, tmp_path, monkeypatch) -> None:
    folder, _ = mnist
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("TACIT_CACHE", str(blocked / "cache"))
    assert len(load_mnist(folder)[0]) == 5


def test_failed_write_leaves_nothing_behind(own_cache, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(cache.np, "save", fail)
    pair = (np.zeros(3), np.ones(3))
    assert cache.cached("key", lambda: pair) is pair
    assert list(own_cache.iterdir()) == []


def damage_with(column: str, images: list[bytes], labels: list) -> Callable[[Path], None]:
    return lambda folder: write(folder / "train-0.parquet", column, images, labels)


BLANK = png(np.zeros((28, 28), np.uint8))
NOISE = png(random_images(1, (28, 28))[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: None, r"no train-\*\.parquet in .*--data or TACIT_DATA"),
        (damage_with("img", [BLANK], [1]), r"no column image \(it has img, label\)"),
        (damage_with("image", [BLANK, b"junk"], [1, 1]), "row 1 is not an image"),
        (damage_with("image", [NOISE[: len(NOISE) // 2]], [1]), "row 0 is not an image"),
        (damage_with("image", [png(np.zeros((9, 8), np.uint8))], [1]), "is 8x9, not 28x28"),
        (damage_with("image", [BLANK], [10]), "not a whole number from 0 to 9"),
        (damage_with("image", [BLANK, BLANK], [1, None]), "not a whole number from 0 to 9"),
        (lambda folder: (folder / "train-0.parquet").write_text("junk"), "read as parquet"),
    ],
)
def test_bad_folders_say_what_is_wrong(tmp_path: Path, damage, message: str) -> None:
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_mnist(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist; check --data or TACIT_DATA"):
        load_mnist(tmp_path / "nowhere")


@pytest.mark.parametrize(("module", "name"), [("PIL", "pillow"), ("pyarrow.parquet", "pyarrow")])
def test_missing_libraries_name_the_extra(mnist, monkeypatch, module: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{name} .* 'tacit\[data\]'"):
        load_mnist(mnist[0])


class Hub:
    """Stands in for the hub: answers from local files, or as if it could not be reached."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, split: str):
        import datasets

        if self.folder is None:
            raise ConnectionError("no route\nto host")
        assert name == "ylecun/mnist"
        files = [str(file) for file in sorted(self.folder.glob(f"{split}-*.parquet"))]
        rows = datasets.Dataset.from_parquet(files, cache_dir=str(self.folder / "arrow"))
        return rows.cast_column("image", datasets.Image())


def test_without_a_folder_the_hub_is_asked(mnist, own_cache, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    folder, _ = mnist
    monkeypatch.delenv("TACIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", Hub(folder))
    from_hub, from_files = load_mnist()[0], load_mnist(folder)[0]
    assert torch.equal(from_hub.inputs, from_files.inputs)
    assert torch.equal(from_hub.targets, from_files.targets)


def test_unreachable_hub_says_how_to_go_on(monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("TACIT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", Hub(None))
    with pytest.raises(UserError, match=r"\(no route\); give a folder .* --data DIR, or set"):
        load_mnist()


def test_missing_datasets_names_the_extra(monkeypatch) -> None:
    monkeypatch.delenv("TACIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="datasets"):
        load_mnist()


@pytest.mark.usefixtures("real_data")
def test_real_mnist() -> None:
    train, test = load_mnist()
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels.bincount().tolist() == counts
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert scale(train.inputs).mean().item() == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.usefixtures("real_data")
@pytest.mark.slow
def test_real_cifar10() -> None:
    train, test = load_cifar10()
    assert (len(train), len(test)) == (50_000, 10_000)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    inputs, _ = train.batch(np.arange(5000))
    assert inputs.shape == (5000, 3, 32, 32)
    pixels = inputs * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    means = (pixels.mean((0, 2, 3)) + torch.tensor([0.485, 0.456, 0.406])).tolist()
    # Channel means of CIFAR-10; the first tenth is representative to about a hundredth.
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
