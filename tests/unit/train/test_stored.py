"""Batches of stored activations: order, views, and what is read of which store."""

import pytest
import torch

from finetune.data.loading import EpochSampler
from finetune.model.store import StoreKey, image_id, open_store
from finetune.train.stored import StoredViews, ViewSampler, stored_loader

NUM_IMAGES = 9


def make_views(num_views: int) -> StoredViews:
    """Store the number 10 · image + view of each view, in memory."""
    stores, places = [], []
    for views in (range(1), range(1, num_views)):
        store = open_store(StoreKey("a", "b"), [(2,)], label="test", place="memory")
        rows = [(image, view) for image in range(NUM_IMAGES) for view in views]
        ids = [image_id(f"{image:032x}", view) for image, view in rows]
        values = torch.tensor([[10.0 * image + view] * 2 for image, view in rows])
        if rows:
            store.add(ids, (values,))
            places.append(store.locate(ids).reshape(NUM_IMAGES, -1))
        else:
            places.append(torch.empty((NUM_IMAGES, 0), dtype=torch.int64))
        stores.append(store)
    changed = stores[1] if num_views > 1 else None
    return StoredViews(torch.arange(NUM_IMAGES), stores[0], places[0][:, 0], changed, places[1])


def epoch(views: StoredViews, sampler: ViewSampler, number: int = 1) -> list[float]:
    """Read an epoch in order."""
    sampler.begin_epoch(0, number)
    loader = stored_loader(views, sampler, batch_size=4)
    return [value for (tensor,), _, _ in loader for value in tensor[:, 0].tolist()]


def test_validation_reads_the_plain_view_of_each_image_in_order() -> None:
    views = make_views(3)
    assert epoch(views, ViewSampler(views, None, 0)) == [10.0 * n for n in range(NUM_IMAGES)]


def test_rows_of_both_stores_come_in_the_order_asked_for() -> None:
    (values,) = make_views(3).read([(4, 1), (2, 0), (4, 2), (0, 0), (4, 1)])
    assert values[:, 0].tolist() == [41.0, 20.0, 42.0, 0.0, 41.0]


@pytest.mark.parametrize("num_views", [1, 3])
def test_training_reads_each_image_once_in_views_drawn_anew_each_epoch(num_views: int) -> None:
    views = make_views(num_views)
    sampler = ViewSampler(views, EpochSampler(NUM_IMAGES, seed=0), 0)
    first, again, second = (epoch(views, sampler, number) for number in (1, 1, 2))
    read = {int(value) // 10 for value in first}
    assert first == again
    assert first != second
    assert len(read) == len(first) == NUM_IMAGES - 1  # a last batch of one image is left out
    assert {int(value) % 10 for value in first + second} == set(range(num_views))


def test_labels_and_positions_belong_to_what_is_read() -> None:
    views = make_views(2)
    sampler = ViewSampler(views, EpochSampler(NUM_IMAGES, seed=1), 1)
    for (values,), labels, positions in stored_loader(views, sampler, batch_size=4):
        assert [int(value) // 10 for value in values[:, 0]] == labels.tolist() == positions.tolist()


def test_an_image_drawn_twice_may_come_in_two_views() -> None:
    views = make_views(4)
    weights = [1.0] + [1e-6] * (NUM_IMAGES - 1)
    sampler = ViewSampler(views, EpochSampler(NUM_IMAGES, seed=0, weights=weights), 0)
    assert len(set(epoch(views, sampler))) > 1
