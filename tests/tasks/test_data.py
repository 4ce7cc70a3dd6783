from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from tacit.errors import UserError
from tacit.tasks.data import DatasetData, TensorData, as_data


class Squares(Dataset):
    """Item i is (a vector of i, i mod 3); counts how often items are fetched."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.fetched = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        self.fetched += 1
        return torch.full((4,), float(index)), index % 3


def test_tensor_data_fetches_rows_in_the_order_asked() -> None:
    data = TensorData(torch.arange(20.0).view(10, 2), torch.arange(10))
    inputs, targets = data.batch(np.array([7, 0, 7]))
    assert inputs.tolist() == [[14.0, 15.0], [0.0, 1.0], [14.0, 15.0]]
    assert targets.tolist() == [7, 0, 7]
    assert len(data) == 10


def test_tensor_data_takes_strided_and_read_only_indices() -> None:
    data = TensorData(torch.arange(10.0), torch.arange(10))
    indices = np.arange(10)[::-3]
    indices.flags.writeable = False
    assert data.batch(indices)[1].tolist() == [9, 6, 3, 0]


def test_transform_applies_to_the_inputs_alone_and_survives_a_move() -> None:
    data = TensorData(torch.arange(10), torch.arange(10), lambda x: x / 2).to("cpu")
    inputs, targets = data.batch(np.array([3]))
    assert (inputs.item(), targets.item()) == (1.5, 3)


def test_labels_are_int64_classes_or_none() -> None:
    inputs = torch.zeros(4, 2)
    labels = TensorData(inputs, torch.tensor([1, 0, 2, 1], dtype=torch.int32)).labels
    assert labels is not None
    assert labels.dtype == torch.int64
    assert TensorData(inputs, torch.rand(4)).labels is None
    assert TensorData(inputs, torch.zeros(4, 3, dtype=torch.int64)).labels is None


def test_lengths_must_agree() -> None:
    with pytest.raises(UserError, match="3 and 4"):
        TensorData(torch.zeros(3), torch.zeros(4))


def test_dataset_batch_equals_the_collated_items() -> None:
    inputs, targets = DatasetData(Squares()).batch(np.array([5, 1]))
    assert inputs.tolist() == [[5.0] * 4, [1.0] * 4]
    assert targets.tolist() == [2, 1]
    assert targets.dtype == torch.int64


def test_dataset_labels_take_one_pass_and_only_when_asked() -> None:
    source = Squares()
    data = as_data(source)
    assert as_data(data) is data
    assert source.fetched == 0
    assert data.labels is not None
    assert data.labels.tolist() == [index % 3 for index in range(10)]
    assert data.labels is not None
    assert source.fetched == 10


@pytest.mark.parametrize("name", ["targets", "labels"])
def test_dataset_labels_come_from_its_attribute_where_it_has_one(name: str) -> None:
    source = Squares()
    setattr(source, name, [2] * 10)
    labels = DatasetData(source).labels
    assert labels is not None
    assert labels.tolist() == [2] * 10
    assert source.fetched == 0


@pytest.mark.parametrize("other", [["cat", "dog", "bird"], ["word"] * 10, 3])
def test_dataset_attributes_that_are_not_labels_are_passed_over(other: object) -> None:
    source = Squares()
    source.labels = other
    labels = DatasetData(source).labels
    assert labels is not None
    assert labels.tolist() == [index % 3 for index in range(10)]


def test_as_data_takes_pairs_of_tensors_the_fast_way() -> None:
    pair = (torch.zeros(5, 2), torch.arange(5))
    assert isinstance(as_data(pair), TensorData)
    assert isinstance(as_data(TensorDataset(*pair)), TensorData)


def test_as_data_refuses_what_it_cannot_read() -> None:
    with pytest.raises(UserError, match="3 tensors"):
        as_data((torch.zeros(5), torch.zeros(5), torch.zeros(5)))
    with pytest.raises(UserError, match="map-style"):
        as_data(iter([]))
    with pytest.raises(UserError, match="item 0 of list is not an"):
        as_data([1.0, 2.0]).batch(np.array([0]))
