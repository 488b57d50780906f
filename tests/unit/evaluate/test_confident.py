"""The rule of confident learning: what it was, on all probabilities or on the likeliest few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluate.confident import MARGIN, Likeliest, suspect_labels


def by_the_book(probs, labels):
    """Suspects as (place, other class), photo by photo and in the order of the paper's margins."""
    usual = {k: np.mean([p[k] for p, label in zip(probs, labels, strict=True) if label == k])
             for k in set(labels.tolist())}  # fmt: skip
    found = []
    for place, (row, label) in enumerate(zip(probs, labels.tolist(), strict=True)):
        reached = [k for k in sorted(usual) if row[k] >= usual[k]]
        other = max(reached, key=lambda k: row[k], default=label)
        if other != label and row[other] - row[label] > MARGIN:
            found.append((row[label] - row[other], place, other))
    return [(place, other) for _, place, other in sorted(found, key=lambda one: one[0])]


@st.composite
def answers(draw):
    """Probabilities (N, K) of sure models, and labels of which some are wrong."""
    num_photos, num_classes = draw(st.integers(1, 60)), draw(st.integers(2, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = random.dirichlet(np.full(num_classes, 0.15), num_photos)
    labels = np.where(
        random.random(num_photos) < draw(st.floats(0, 1)),
        random.integers(0, num_classes, num_photos),
        probs.argmax(axis=1),
    )
    return probs, labels.astype(np.int64)


@settings(deadline=None)
@given(answers())
def test_the_rule_is_that_of_the_paper(given_answers):
    probs, labels = given_answers
    found = suspect_labels(probs, labels)
    pairs = list(zip(found.places.tolist(), found.others.tolist(), strict=True))
    assert pairs == by_the_book(probs, labels)
    assert found.likely.tolist() == [probs[place, other] for place, other in pairs]
    assert found.own.tolist() == probs[found.places, labels[found.places]].tolist()


@pytest.mark.parametrize("kept", [2, 3, 5])
@settings(deadline=None)
@given(given_answers=answers())
def test_the_likeliest_few_give_the_same_suspects(kept, given_answers):
    probs, labels = given_answers
    order = np.argsort(-probs, axis=1, kind="stable")[:, :kept]
    few = np.take_along_axis(probs, order, axis=1)
    own = probs[np.arange(len(labels)), labels]
    found = suspect_labels(few, labels, of=Likeliest(order, own))
    whole = suspect_labels(probs, labels)
    assert found.places.tolist() == whole.places.tolist()
    assert found.others.tolist() == whole.others.tolist()


def test_a_class_that_no_photo_is_labelled_is_nothing_to_look_like():
    probs = np.array([[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])
    assert suspect_labels(probs, np.array([0, 1])).places.tolist() == []


def test_no_photos_are_no_suspects():
    assert suspect_labels(np.zeros((0, 3)), np.zeros(0, np.int64)).places.tolist() == []
