"""The photos of a page are the telling ones, and no more than fit."""

import numpy as np

from finetune.report.answers import Answers
from finetune.report.gallery import MAX_CLASSES, NUM_SUSPECTS, choose_photos
from finetune.report.labels import check_labels

CLASSES = ("ants", "bees", "wasps")


Row = tuple[int, int, float]


def answers_of(rows: list[Row], classes: tuple[str, ...] = CLASSES) -> Answers:
    """Answers by (label, predicted, probability); the rest goes to the next class."""
    labels = np.array([row[0] for row in rows])
    likeliest = np.array([(row[1], (row[1] + 1) % len(classes)) for row in rows])
    probs = np.array([(row[2], 1 - row[2]) for row in rows], np.float32)
    own = np.where(likeliest == labels[:, None], probs, 0).sum(axis=1, dtype=np.float32)
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


def usual_answers(num_photos: int = 5) -> list[Row]:
    """Photos of each of three classes that are named right, 80 % sure."""
    return [(label, label, 0.8) for label in range(3) for _ in range(num_photos)]


def test_what_is_as_sure_as_is_usual_for_another_class_is_a_suspect() -> None:
    # ants are named 80 % sure on average: 0.78 is below that
    rows = [*usual_answers(9), (1, 0, 0.95), (2, 0, 0.78), (1, 2, 0.6)]
    checked = check_labels(answers_of(rows))
    assert checked.num_judged == len(rows)
    assert checked.suspects == (27,)
    rows[28] = (2, 0, 0.85)
    assert check_labels(answers_of(rows)).suspects == (27, 28)


def test_a_class_of_fewer_than_five_photos_is_not_judged_nor_looked_like() -> None:
    rows = [*usual_answers(), (0, 1, 0.9)]
    del rows[10]  # a wasp of five
    rows += [(0, 2, 0.99)]
    checked = check_labels(answers_of(rows))
    assert checked.passed_over == (2,)
    assert checked.num_judged == 12
    assert checked.suspects == (14,)


def test_one_class_of_enough_photos_cannot_be_judged() -> None:
    checked = check_labels(answers_of([(0, 0, 0.9)] * 5 + [(1, 0, 0.99)]))
    assert (checked.num_judged, checked.suspects) == (0, ())


def test_a_photo_without_an_answer_or_a_known_class_is_not_judged() -> None:
    answers = answers_of([*usual_answers(6), (1, 0, 0.95)])
    answers.labels[-1] = -1
    answers.probabilities[0] = np.nan
    checked = check_labels(answers)
    assert (checked.num_judged, checked.suspects) == (17, ())


def test_the_likeliest_wrong_labels_are_shown_and_all_are_counted() -> None:
    rows = [*usual_answers(90), *((1, 0, 0.85 + 0.001 * n) for n in range(30))]
    gallery = choose_photos(answers_of(rows))
    assert gallery.suspects == tuple(range(299, 299 - NUM_SUSPECTS, -1))
    assert len(gallery.labels.suspects) == 30
    assert set(gallery.suspects) <= set(gallery.studied)


def test_labels_that_the_model_has_seen_are_not_judged() -> None:
    gallery = choose_photos(answers_of([*usual_answers(), (1, 0, 0.9)]), were_trained_on=True)
    assert (gallery.suspects, gallery.labels.num_judged) == ((), 0)
