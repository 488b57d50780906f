"""Labels that are probably wrong and photos that are nearly one, from features alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.data.findings import Finding
from finetune.evaluate import suspects
from finetune.evaluate.suspects import find_similar, find_suspect_labels, predict_held_out
from finetune.train.linear import Features
from finetune.types import Sample

ROOT = Path("/photos")
CLASSES = ("ants", "bees", "cats")


def samples_of(labels, names=None):
    names = names or [f"{number}.jpg" for number in range(len(labels))]
    return [
        Sample(ROOT / name, name, CLASSES[label], digest=name, picture=name)
        for name, label in zip(names, labels, strict=True)
    ]


def clusters(num_images=60, *, width=8):
    """Features of three classes that lie well apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % 3
    values = rng.normal(0, 0.3, (num_images, width)) + 3 * np.eye(3, width)[labels]
    return Features(values.astype(np.float32), labels.astype(np.int64))


@pytest.mark.slow
def test_wrong_labels_are_found_and_no_others():
    features = clusters()
    wrong = features.labels.copy()
    wrong[[4, 9]] = 2, 1  # a bee called cats, an ant called bees
    found = find_suspect_labels(Features(features.values, wrong), samples_of(wrong), CLASSES)
    assert {finding.names for finding in found} == {("4.jpg",), ("9.jpg",)}
    assert all(finding.kind == "suspect_label" and finding.value > 0.9 for finding in found)
    details = {finding.names[0]: finding.detail for finding in found}
    assert details["4.jpg"].startswith("labelled cats (0.0")
    assert ", looks like bees (" in details["4.jpg"]


@pytest.mark.slow
def test_right_labels_are_no_suspects():
    features = clusters()
    assert find_suspect_labels(features, samples_of(features.labels), CLASSES) == ()


@pytest.mark.slow
def test_a_class_of_few_pictures_is_not_judged():
    features = clusters(30)
    labels = features.labels.copy()
    labels[labels == 2] = 0
    labels[:4] = 2  # four images of mixed content are called cats
    found = find_suspect_labels(Features(features.values, labels), samples_of(labels), CLASSES)
    assert not {finding.names[0] for finding in found} & {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}


def test_one_class_cannot_be_judged():
    features = clusters(12)
    labels = np.zeros(12, dtype=np.int64)
    assert find_suspect_labels(Features(features.values, labels), samples_of(labels), CLASSES) == ()


@pytest.mark.slow
def test_near_duplicates_are_held_out_together():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(0, 1, (40, 80)), 2, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(0, 2, 40), 2)  # chance, but each picture stands there twice
    apart = predict_held_out(Features(values, labels, np.arange(80)))
    together = predict_held_out(Features(values, labels, np.arange(80) // 2))
    assert (apart.argmax(axis=1) == labels).mean() > 0.9
    assert (together.argmax(axis=1) == labels).mean() < 0.7


def test_photos_of_nearly_equal_features_are_grouped():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (10, 64)).astype(np.float32)
    values[7] = values[2] + 0.1 * values[3]
    values[9] = values[2] - 0.1 * values[4]
    (found,) = find_similar(values, samples_of([0] * 7 + [1] * 3))
    assert found == Finding(
        "similar",
        ("2.jpg", "7.jpg", "9.jpg"),
        "2.jpg (ants) ~ 7.jpg (bees) ~ 9.jpg (bees)",
        found.value,
    )
    assert 0.95 < found.value < 1


def test_near_duplicates_are_not_also_called_similar():
    values = np.random.default_rng(0).normal(0, 1, (10, 64)).astype(np.float32)
    values[7] = values[2]
    samples = samples_of([0] * 10)
    assert len(list(find_similar(values, samples))) == 1
    samples[7] = replace(samples[7], picture=samples[2].picture)
    assert list(find_similar(values, samples)) == []


def test_photos_far_apart_in_the_list_are_found_and_each_group_has_its_own_value(monkeypatch):
    monkeypatch.setattr(suspects, "_BLOCK", 3)
    values = np.random.default_rng(0).normal(0, 1, (11, 64)).astype(np.float32)
    values[10] = values[0] + 0.1 * values[3]
    values[5] = values[4] + 0.4 * values[7]
    first, second = find_similar(values, samples_of([0] * 11))
    assert first.names == ("0.jpg", "10.jpg")
    assert second.names == ("4.jpg", "5.jpg")
    assert second.value < first.value < 1
