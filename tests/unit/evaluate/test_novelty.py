"""What photos are compared with, and how far they may be from it."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from finetune.evaluate.novelty import fit_novelty, sample_reference
from finetune.recipe.resolve import NUM_REFERENCE
from finetune.types import Sample


def samples_of(counts):
    """Samples of some classes; digests are what they are drawn by."""
    generator = np.random.default_rng(0)
    return [
        Sample(None, f"{label}/{n}.jpg", label, "train", digest=generator.bytes(8).hex())
        for label, number in counts.items()
        for n in range(number)
    ]


def clusters(generator, num_images, *, centres=None):
    """Features around three directions of twenty numbers."""
    centres = np.eye(20)[:3] if centres is None else centres
    rows = centres[np.arange(num_images) % len(centres)]
    return (rows + generator.normal(0, 0.05, size=(num_images, 20))).astype(np.float32)


def test_few_photos_are_all_taken():
    samples = samples_of({"a": 7, "b": 3})
    assert sorted(one.name for one in sample_reference(samples)) == sorted(s.name for s in samples)


def test_of_many_photos_every_class_has_the_same_number():
    drawn = sample_reference(samples_of({"a": 2_000, "b": 300, "c": 20}))
    counts = {label: sum(one.label == label for one in drawn) for label in "abc"}
    assert counts == {"a": 240, "b": 240, "c": 20}
    assert sum(counts.values()) == NUM_REFERENCE


def test_of_very_many_classes_each_has_three():
    drawn = sample_reference(samples_of({f"{n:04d}": 5 for n in range(400)}))
    assert len(drawn) == 1_200
    assert len({one.label for one in drawn}) == 400


def test_the_draw_follows_from_content_not_from_names_or_order():
    samples = samples_of({"a": 600, "b": 600})
    renamed = [
        Sample(None, f"x{n}", s.label, "train", digest=s.digest) for n, s in enumerate(samples)
    ]
    drawn = {one.digest for one in sample_reference(samples)}
    assert {one.digest for one in sample_reference(renamed[::-1])} == drawn


def test_copies_of_a_file_count_once():
    samples = samples_of({"a": 4})
    assert len(sample_reference(samples + samples)) == 4


def test_distances_are_scikit_learns():
    generator = np.random.default_rng(0)
    reference, features = clusters(generator, 90), clusters(generator, 40)
    novelty = fit_novelty(reference, features, num_classes=3).value
    search = NearestNeighbors(n_neighbors=novelty.neighbour, metric="cosine", algorithm="brute")
    expected = search.fit(novelty.reference.float().numpy()).kneighbors(features)[0][:, -1]
    np.testing.assert_allclose(novelty.distances(torch.from_numpy(features)), expected, atol=1e-5)
    assert novelty.neighbour == 10


def test_95_percent_of_validation_are_below_1():
    generator = np.random.default_rng(0)
    reference, features = clusters(generator, 300), clusters(generator, 1_000)
    chosen = fit_novelty(reference, features, num_classes=3)
    scores = chosen.value.scores(torch.from_numpy(features))
    assert (scores > 1).mean() <= 0.05 < (scores >= 1).mean() + 0.002
    later = chosen.value.scores(torch.from_numpy(clusters(generator, 4_000)))
    # 1,000 validation photos leave the share within two points.
    assert (later > 1).mean() == pytest.approx(0.05, abs=0.02)
    assert chosen.reason.startswith("95% of 1000 validation photos are within")


def test_features_of_another_kind_are_above_1():
    generator = np.random.default_rng(0)
    novelty = fit_novelty(clusters(generator, 300), clusters(generator, 200), num_classes=3).value
    others = clusters(generator, 200, centres=np.eye(20)[10:13])
    assert (novelty.scores(torch.from_numpy(others)) > 1).all()


@pytest.mark.parametrize(
    ("num_reference", "num_classes", "expected"), [(2, 2, 1), (24, 3, 4), (500, 10, 10), (9, 20, 1)]
)
def test_the_neighbour_that_counts_is_within_a_class(num_reference, num_classes, expected):
    generator = np.random.default_rng(0)
    chosen = fit_novelty(
        clusters(generator, num_reference), clusters(generator, 8), num_classes=num_classes
    )
    assert chosen.value.neighbour == expected


def test_photos_without_features_do_not_count():
    generator = np.random.default_rng(0)
    reference, features = clusters(generator, 60), clusters(generator, 30)
    harmed = np.vstack([features, np.full((1, 20), np.nan, np.float32)])
    expected = fit_novelty(reference, features, num_classes=3).value.threshold
    assert fit_novelty(reference, harmed, num_classes=3).value.threshold == expected


@pytest.mark.parametrize("shapes", [((0, 20), (5, 20)), ((5, 20), (0, 20))])
def test_with_nothing_to_compare_nothing_is_fitted(shapes):
    reference, features = (np.ones(shape, np.float32) for shape in shapes)
    assert fit_novelty(reference, features, num_classes=2).value is None


def test_equal_features_tell_nothing():
    same = np.zeros((6, 20), np.float32)
    same[:, 0] = 1
    chosen = fit_novelty(same, same, num_classes=2)
    assert chosen.value is None
    assert chosen.reason == "validation photos do not differ from training photos"
