"""The photos of a page are the telling ones, and no more than fit."""

import numpy as np

from finetune.report.answers import Answers
from finetune.report.gallery import MAX_CLASSES, choose_photos

CLASSES = ("ants", "bees", "wasps")


def answers_of(rows: list[tuple[int, int, float]], classes: tuple[str, ...] = CLASSES) -> Answers:
    """Answers by (label, predicted, probability); the rest goes to the next class."""
    labels = np.array([row[0] for row in rows])
    likeliest = np.array([(row[1], (row[1] + 1) % len(classes)) for row in rows])
    probs = np.array([(row[2], 1 - row[2]) for row in rows], np.float32)
    own = np.zeros(len(rows), np.float32)
    return Answers(classes, tuple(map(str, range(len(rows)))), labels, likeliest, probs, own)


def test_the_surest_mistakes_come_first() -> None:
    gallery = choose_photos(answers_of([(0, 1, 0.6), (0, 0, 0.99), (1, 2, 0.9), (2, 0, 0.7)]))
    assert gallery.surest == (2, 3, 0)


def test_the_least_sure_answers_are_those_nearest_to_another() -> None:
    gallery = choose_photos(answers_of([(0, 0, 0.9), (1, 1, 0.51), (2, 2, 0.6)]))
    assert gallery.least_sure == (1, 2, 0)


def test_a_pair_counts_both_ways_and_names_the_more_frequent_one_first() -> None:
    rows = [(0, 1, 0.8)] + 2 * [(1, 0, 0.7)] + 2 * [(2, 0, 0.9)]
    first, second = choose_photos(answers_of(rows)).pairs
    assert (first.one, first.other, first.num_there, first.num_back) == (1, 0, 2, 1)
    assert (second.one, second.other, second.num_mistakes) == (2, 0, 2)
    assert set(first.photos) == {0, 1, 2}


def test_a_cell_shows_some_photos_and_counts_all() -> None:
    gallery = choose_photos(answers_of([(0, 1, 0.5 + 0.001 * n) for n in range(100)]))
    cell = gallery.cells[0, 1]
    assert cell.num_photos == 100
    assert len(cell.named) == 20
    assert set(cell.photos) <= set(gallery.photos)


def test_nobody_without_mistakes_has_mistakes_shown() -> None:
    gallery = choose_photos(answers_of([(0, 0, 0.9), (1, 1, 0.8)]))
    assert (gallery.surest, gallery.pairs) == ((), ())
    assert set(gallery.cells) == {(0, 0), (1, 1)}


def test_photos_are_bounded_whatever_there_is() -> None:
    draw = np.random.default_rng(0)
    classes = tuple(f"class {n}" for n in range(100))
    labels, predicted = draw.integers(0, 100, (2, 3000)).tolist()
    rows = list(zip(labels, predicted, draw.uniform(0.5, 1, 3000).tolist(), strict=True))
    gallery = choose_photos(answers_of(rows, classes), max_photos=150)
    assert len(gallery.photos) <= 150
    assert len(gallery.classes) == MAX_CLASSES
    assert len(gallery.photos) == len(set(gallery.photos))


def test_the_classes_of_a_large_matrix_are_those_with_most_mistakes() -> None:
    classes = tuple(f"class {n:02d}" for n in range(40))
    rows = [(n, n, 0.9) for n in range(40)] + [(39, 38, 0.9), (5, 37, 0.9)]
    gallery = choose_photos(answers_of(rows, classes))
    assert {5, 37, 38, 39} <= set(gallery.classes)
    assert len(gallery.classes) == MAX_CLASSES
