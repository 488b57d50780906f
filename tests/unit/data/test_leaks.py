"""What stands in train and in another part, or under two labels."""

from pathlib import Path

from finetune.data.leaks import (
    Leaks,
    conflict_warnings,
    count_leaks,
    find_duplicates,
    leak_warnings,
)
from finetune.types import Index, Sample

ROOT = Path("/photos")


def sample(name, digest, picture=None, *, label="a", split=None):
    return Sample(ROOT / name, name, label, split, None, digest, None, picture or digest)


def index_of(*samples):
    return Index(ROOT, samples, ("a", "b"))


def parts(*test, others=0):
    train = (sample("1", "d1", split="train"), sample("2", "d2", split="train"))
    rest = (sample(f"r{k}", f"r{k}", split="test") for k in range(others))
    return index_of(*train, *test, *rest)


def test_copies_and_near_duplicates_of_training_images_are_counted_apart():
    index = parts(
        sample("3", "d1", split="test"),
        sample("4", "d4", "d1", split="test"),
        sample("5", "d5", "d2", split="test"),
        sample("6", "d6", split="test"),
    )
    assert count_leaks(index, "test") == Leaks(num_copies=1, num_near=2)
    assert count_leaks(index, "val") == Leaks(0, 0)
    assert leak_warnings(index, "test") == (
        "1 of 4 test images is a byte-for-byte copy of training images: "
        "the test figures are not to be trusted",
        "2 of 4 test images are near-duplicates of training images: "
        "the test figures are not to be trusted",
    )
    assert leak_warnings(index, "val") == ()


def test_a_copy_that_also_has_a_near_duplicate_in_train_is_counted_once():
    train = (sample("1", "d1", split="train"), sample("2", "d2", "d1", split="train"))
    assert count_leaks(index_of(*train, sample("3", "d1", split="val")), "val") == Leaks(1, 0)


def test_a_single_leak_among_many_is_said_in_milder_words():
    index = parts(sample("3", "d1", split="test"), others=150)
    assert leak_warnings(index, "test") == (
        "1 of 151 test images is a byte-for-byte copy of training images: "
        "the test figures are slightly too good",
    )


def test_duplicates_are_grouped_by_content_or_by_picture():
    index = index_of(sample("3", "d1"), sample("1", "d1"), sample("2", "d2", "d1"))
    names = [[one.name for one in group] for group in find_duplicates(index)]
    assert names == [["1", "3"]]
    names = [[one.name for one in group] for group in find_duplicates(index, near=True)]
    assert names == [["1", "2", "3"]]


def test_samples_that_were_not_checked_are_no_duplicates():
    index = index_of(Sample(ROOT / "1", "1", "a", "train"), Sample(ROOT / "2", "2", "b", "test"))
    assert find_duplicates(index) == find_duplicates(index, near=True) == ()
    assert count_leaks(index, "test") == Leaks(0, 0)


def test_contradicting_labels_are_named():
    index = index_of(
        sample("1", "d1", label="a"),
        sample("2", "d1", label="b"),
        sample("3", "d3", "d3", label="a"),
        sample("4", "d4", "d3", label="b"),
    )
    assert conflict_warnings(index) == (
        "1 image stands under more than one label: 1 (a) = 2 (b)",
        "1 picture stands under more than one label in files that differ: 3 (a) ~ 4 (b)",
    )
    assert conflict_warnings(index_of(sample("1", "d1"), sample("2", "d1"))) == ()
