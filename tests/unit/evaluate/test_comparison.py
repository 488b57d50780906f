"""Runs compared: verdicts, classes, images, corrections, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.errors import DataError
from finetune.evaluate.answers import Cost, RunAnswers
from finetune.evaluate.comparison import compare_runs

CLASSES = ("ants", "bees", "wasps")


def answers_of(name, predicted, labels, **values):
    """A run that is 0.9 sure of each answer."""
    num_images = len(labels)
    known = {
        "split": "test",
        "classes": CLASSES,
        "paths": tuple(f"{row:04d}.jpg" for row in range(num_images)),
        "probability": np.full(num_images, 0.9),
        "digests": tuple(f"d{row}" for row in range(num_images)),
        **values,
    }
    return RunAnswers(
        name=name, labels=np.array(labels, np.int64), predicted=np.array(predicted), **known
    )


@pytest.fixture
def labels():
    return np.repeat([0, 1, 2], 100)


def wrong_at(labels, rows):
    predicted = labels.copy()
    predicted[list(rows)] = (labels[list(rows)] + 1) % 3
    return predicted


def test_a_better_run_is_called_better_with_points_interval_and_p_value(labels):
    worse = answers_of("old", wrong_at(labels, range(0, 300, 5)), labels)
    better = answers_of("new", wrong_at(labels, range(0, 300, 15)), labels)
    (found,) = compare_runs([worse, better]).differences
    assert found.accuracy == pytest.approx(40 / 300)
    assert (found.num_only_run, found.num_only_reference) == (40, 0)
    assert found.verdict.startswith("new is better than old by 13.3 points of accuracy, 95 % ")
    assert found.verdict.endswith(", p < 0.001")
    assert found.is_told


def test_a_worse_run_is_told_from_the_better_ones_side(labels):
    reference = answers_of("old", labels, labels)
    run = answers_of("new", wrong_at(labels, range(0, 300, 10)), labels)
    (found,) = compare_runs([reference, run]).differences
    low, high = found.accuracy_interval
    assert found.accuracy == pytest.approx(-0.1)
    assert found.verdict == (
        f"old is better than new by 10.0 points of accuracy, "
        f"95 % interval {-100 * high:.1f} to {-100 * low:.1f}, p < 0.001"
    )


def test_a_small_difference_is_not_told_and_the_sentence_says_so(labels):
    first = answers_of("a", wrong_at(labels, [0, 1, 2]), labels)
    second = answers_of("b", wrong_at(labels, [5]), labels)
    (found,) = compare_runs([first, second]).differences
    assert not found.is_told
    assert found.p_value == pytest.approx(0.625)  # 2 (1 + 4) / 2^4
    assert found.verdict.startswith(
        "no difference can be told: the accuracy of b less that of a is 0.7 points, 95 % interval "
    )
    assert found.verdict.endswith(", p = 0.62")


def test_runs_right_on_the_same_images_are_said_to_be_so(labels):
    first = answers_of("a", wrong_at(labels, [0, 150]), labels)
    (found,) = compare_runs([first, replace(first, name="b")]).differences
    assert found.verdict == "no difference can be told: b and a are right on the same images"
    assert (found.accuracy_interval, found.macro_f1_interval, found.p_value) == (None, None, 1.0)


def test_classes_are_compared_and_corrected_over_all_classes_of_all_runs(labels):
    reference = answers_of("a", wrong_at(labels, range(12)), labels)
    better = answers_of("b", labels, labels)
    same = replace(reference, name="c")
    first, second = compare_runs([reference, better, same]).differences
    ants = first.per_class[0]
    assert (ants.name, ants.support, ants.reference_recall, ants.recall) == ("ants", 100, 0.88, 1.0)
    assert ants.interval[0] < 0.12 < ants.interval[1]
    assert ants.corrected_p_value == pytest.approx(6 * ants.p_value)
    assert first.corrected_p_value == pytest.approx(2 * first.p_value)
    assert {row.corrected_p_value for row in second.per_class} == {1.0}


def test_images_on_which_runs_differ_are_listed_those_first_that_divide_them(labels):
    first, second = wrong_at(labels, [0, 7]), wrong_at(labels, [0])
    second[0] = 2  # both wrong, each in its own way
    found = compare_runs([answers_of("a", first, labels), answers_of("b", second, labels)])
    assert [one.path for one in found.disagreements] == ["0007.jpg", "0000.jpg"]
    assert [answer.predicted for answer in found.disagreements[0].answers] == ["bees", "ants"]
    assert found.disagreements[0].label == "ants"
    assert found.disagreements[0].answers[1].is_correct
    assert found.disagreements[0].answers[0].probability == 0.9


def test_images_and_classes_are_matched_by_name_not_by_place(labels):
    predicted = wrong_at(labels, range(0, 300, 7))
    first = answers_of("a", predicted, labels)
    order = np.random.default_rng(0).permutation(300)
    turned = RunAnswers(
        name="b",
        split="test",
        classes=CLASSES[::-1],
        paths=tuple(first.paths[row] for row in order),
        labels=2 - labels[order],
        predicted=2 - predicted[order],
        probability=first.probability[order],
        digests=tuple(first.digests[row] for row in order),
    )
    found = compare_runs([first, turned])
    assert found.disagreements == ()
    assert found.runs[0].macro_f1 == found.runs[1].macro_f1


def refused(first, second):
    with pytest.raises(DataError) as caught:
        compare_runs([first, second])
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value.message


def test_other_images_are_refused_and_named(labels):
    first = answers_of("a", labels, labels)
    second = replace(first, name="b", paths=tuple(f"x{path}" for path in first.paths))
    assert refused(first, second) == (
        "a and b were tested on different images; "
        "only in a: 0000.jpg, 0001.jpg, 0002.jpg, 0003.jpg, 0004.jpg and 295 more; "
        "only in b: x0000.jpg, x0001.jpg, x0002.jpg, x0003.jpg, x0004.jpg and 295 more"
    )


def test_other_classes_are_refused_and_named(labels):
    first = answers_of("a", labels, labels)
    second = replace(first, name="b", classes=("ants", "bees", "flies"))
    message = refused(first, second)
    assert message == "a and b know different classes; only in a: wasps; only in b: flies"


def test_other_labels_are_refused_and_named(labels):
    first = answers_of("a", labels, labels)
    second = answers_of("b", labels, np.where(np.arange(300) == 3, 2, labels))
    assert refused(first, second) == (
        "a and b were tested under different labels: 0003.jpg (ants and wasps)"
    )


def test_other_contents_under_the_same_names_are_refused_and_named(labels):
    first = answers_of("a", labels, labels)
    digests = tuple(
        "other" if row in (4, 9) else digest for row, digest in enumerate(first.digests)
    )
    assert refused(first, replace(first, name="b", digests=digests)) == (
        "2 images were changed between a and b: the names are the same, the files are not: "
        "0004.jpg, 0009.jpg"
    )


def test_unknown_contents_are_no_reason_to_refuse_but_said(labels):
    first = answers_of("a", labels, labels)
    (note,) = compare_runs([first, replace(first, name="b", digests=())]).notes
    assert note.startswith("the images have the same names and labels; whether they are the same")
    alike = [replace(first, name=name, digests=(), fingerprint="f") for name in "ab"]
    assert compare_runs(alike).notes == ()


def test_a_comparison_on_val_says_that_val_chose_the_weights(labels):
    runs = [replace(answers_of(name, labels, labels), split="val") for name in "ab"]
    (note,) = compare_runs(runs).notes
    assert note.startswith("compared on val, which chose the weights of each run: no test")


def test_costs_of_different_devices_are_said_to_be_so(labels):
    runs = [
        replace(answers_of(device, labels, labels), cost=Cost(device=device))
        for device in ("cpu", "cuda:0")
    ]
    (note,) = compare_runs(runs).notes
    assert note.endswith("were measured on different devices: cpu and cuda:0")


def share_told(cells, *, num_sets):
    """Compare two models of 1,000 images so many times; give the share whose verdict tells them.

    The cells are the shares of images that both get right, the first alone, the second, neither.
    """
    generator = np.random.default_rng(0)
    labels = np.arange(1_000) % 3
    told = []
    for _ in range(num_sets):
        cell = generator.choice(4, size=1_000, p=cells)
        runs = [
            answers_of(name, np.where(np.isin(cell, right), labels, (labels + 1) % 3), labels)
            for name, right in (("a", (0, 1)), ("b", (0, 2)))
        ]
        told.append(compare_runs(runs).differences[0].is_told)
    return np.mean(told)


@pytest.mark.slow
def test_two_seeds_of_one_recipe_are_told_apart_in_fewer_than_5_of_100_comparisons():
    # Both are 85 % right; one image in ten is right in one seed alone.
    assert share_told([0.80, 0.05, 0.05, 0.10], num_sets=1_000) <= 0.05


@pytest.mark.slow
def test_five_points_of_1000_images_are_found():
    # 85 and 90 % right, 150 images differing: a power of 0.98 in this simulation.
    assert share_told([0.80, 0.05, 0.10, 0.05], num_sets=300) >= 0.95


def test_images_of_one_group_are_no_evidence_of_their_own(labels):
    groups = tuple(f"tree {row // 30}" for row in range(300))
    first = answers_of("a", wrong_at(labels, range(30)), labels, groups=groups)
    second = answers_of("b", labels, labels, groups=groups)
    compared = compare_runs([first, second])
    (found,) = compared.differences
    assert (found.num_only_run, found.p_value) == (30, 1.0)  # all of one tree
    assert found.verdict.startswith("no difference can be told")
    assert compared.notes[-1] == (
        "the images are of 10 groups, which p-values go by; intervals take images as independent, "
        "and are too narrow"
    )
    apart = [replace(run, groups=tuple(map(str, range(300)))) for run in (first, second)]
    assert compare_runs(apart).differences[0].p_value < 1e-8
    assert compare_runs(apart).notes == ()


def test_groups_go_with_their_images(labels):
    groups = tuple(f"tree {row // 30}" for row in range(300))
    first = answers_of("a", wrong_at(labels, range(30)), labels, groups=groups)
    second = answers_of("b", labels, labels, groups=groups)
    order = np.random.default_rng(0).permutation(300)
    moved = replace(
        second,
        paths=tuple(second.paths[row] for row in order),
        labels=second.labels[order],
        predicted=second.predicted[order],
        digests=tuple(second.digests[row] for row in order),
        groups=tuple(groups[row] for row in order),
    )
    assert compare_runs([first, moved]).differences[0].p_value == 1.0


@pytest.mark.parametrize("place", [0, 1])
def test_groups_that_one_run_tells_of_are_those_of_all(labels, place):
    groups = tuple(f"tree {row // 30}" for row in range(300))
    runs = [answers_of("a", wrong_at(labels, range(30)), labels), answers_of("b", labels, labels)]
    runs[place] = replace(runs[place], groups=groups)
    alone = tuple(map(str, range(300)))  # another account, by which each image is by itself
    runs[1 - place] = replace(runs[1 - place], groups=alone)
    compared = compare_runs(runs)
    assert compared.differences[0].p_value == 1.0
    assert compared.differences[0].per_class[0].p_value == 1.0
    assert "the images are of 10 groups" in compared.notes[-1]


def test_images_that_were_trained_on_are_told(labels):
    first = answers_of("a", labels, labels, num_leaked=7)
    second = answers_of("b", labels, labels, num_leaked=9)
    assert compare_runs([first, second]).notes == (
        "of 300 images some were also trained on, 7 for a and 9 for b: who remembers them better "
        "looks better",
    )
