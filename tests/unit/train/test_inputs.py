"""Batches that are read once: kept where they fit, passed on where they do not."""

import torch
from torch.utils.data import DataLoader, Dataset

from finetune.train.inputs import KeptBatches


class Counted(Dataset):
    """Ten images of 12 bytes that count how often they are read."""

    def __init__(self) -> None:
        self.num_read = 0

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int):
        self.num_read += 1
        return torch.full((3, 2, 2), index, dtype=torch.uint8), index, index


def test_a_second_pass_reads_nothing_and_gives_the_same_batches() -> None:
    images = Counted()
    batches = KeptBatches(DataLoader(images, batch_size=4))
    first, second = list(batches), list(batches)
    assert images.num_read == 10
    assert len(batches) == len(first) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_batches_beyond_the_budget_are_read_again() -> None:
    images = Counted()
    batches = KeptBatches(DataLoader(images, batch_size=4), budget_bytes=100)
    assert [b[1].tolist() for b in batches] == [b[1].tolist() for b in batches]
    assert images.num_read == 20


def test_a_pass_that_was_broken_off_keeps_nothing() -> None:
    images = Counted()
    batches = KeptBatches(DataLoader(images, batch_size=4))
    next(iter(batches))
    assert sum(len(labels) for _, labels, _ in batches) == 10
