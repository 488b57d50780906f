"""Metrics equal scikit-learn's, and what is undefined is NaN."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune.components.metrics import METRICS, is_defined, is_loss

NAMES = [
    "accuracy",
    "balanced_accuracy",
    "expected_calibration_error",
    "log_loss",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "roc_auc_ovr",
    "top_5_accuracy",
    "weighted_f1",
]


@st.composite
def outcomes(draw, min_classes=2):
    num_classes = draw(st.integers(min_classes, 8))
    num_samples = draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = generator.dirichlet(
        np.full(num_classes, draw(st.sampled_from([0.2, 1.0, 5.0]))), size=num_samples
    )
    return probs.astype(np.float32), generator.integers(0, num_classes, num_samples)


def one_hot(predicted, num_classes):
    return np.eye(num_classes, dtype=np.float32)[predicted]


def test_the_table_holds_every_metric_in_alphabetical_order():
    assert list(METRICS) == NAMES


def test_importing_the_table_loads_nothing_heavy():
    heavy = "{'numpy', 'sklearn', 'torch', 'pandas', 'pydantic'}"
    code = f"import sys, finetune.components.metrics; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize("name", ["log_loss", "val_log_loss", "val_expected_calibration_error"])
def test_a_loss_is_better_when_lower(name):
    assert is_loss(name)


@pytest.mark.parametrize("name", ["accuracy", "val_macro_f1", "roc_auc_ovr"])
def test_a_score_is_better_when_higher(name):
    assert not is_loss(name)


@given(outcomes())
@settings(max_examples=40, deadline=None)
def test_figures_of_the_likeliest_class_equal_scikit_learns_defaults(outcome):
    probs, labels = outcome
    predicted = probs.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro", zero_division=0),
        "weighted_f1": sk.f1_score(labels, predicted, average="weighted", zero_division=0),
        "macro_precision": sk.precision_score(labels, predicted, average="macro", zero_division=0),
        "macro_recall": sk.recall_score(labels, predicted, average="macro", zero_division=0),
    }
    assert {name: METRICS[name](probs, labels) for name in expected} == pytest.approx(expected)


@given(outcomes())
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_equals_scikit_learns(outcome):
    probs, labels = outcome
    expected = sk.balanced_accuracy_score(labels, probs.argmax(axis=1))
    assert METRICS["balanced_accuracy"](probs, labels) == pytest.approx(expected)


@given(outcomes())
@settings(max_examples=40, deadline=None)
def test_log_loss_equals_its_definition(outcome):
    probs, labels = outcome
    right = np.clip(probs[np.arange(len(labels)), labels].astype(float), np.finfo(float).eps, 1)
    # 1e-5: float32 rows do not sum to 1 exactly, and the metric lets them.
    assert METRICS["log_loss"](probs, labels) == pytest.approx(-np.log(right).mean(), abs=1e-5)


@given(outcomes(min_classes=3))
@settings(max_examples=40, deadline=None)
def test_roc_auc_equals_the_mean_over_classes(outcome):
    probs, labels = outcome
    num_classes = probs.shape[1]
    probs = np.vstack([probs, np.full((num_classes, num_classes), 1 / num_classes)])
    labels = np.concatenate([labels, np.arange(num_classes)])  # every class has an image
    areas = [sk.roc_auc_score(labels == k, probs[:, k]) for k in range(num_classes)]
    # 1e-6: rows are normalised in float64, which may part two equal float32 scores.
    assert METRICS["roc_auc_ovr"](probs, labels) == pytest.approx(np.mean(areas), abs=1e-6)


@given(outcomes(min_classes=6))
@settings(max_examples=40, deadline=None)
def test_top_5_accuracy_equals_its_definition(outcome):
    probs, labels = outcome
    best = np.argsort(-probs, axis=1, kind="stable")[:, :5]
    expected = (best == labels[:, None]).any(axis=1).mean()
    assert METRICS["top_5_accuracy"](probs, labels) == pytest.approx(expected)


@given(outcomes(min_classes=6))
@settings(max_examples=30, deadline=None)
def test_every_share_lies_between_0_and_1(outcome):
    shares = [METRICS[name](*outcome) for name in NAMES if name not in ("log_loss", "roc_auc_ovr")]
    assert all(0 <= share <= 1 for share in shares)


def test_of_equal_probabilities_the_first_class_is_predicted_everywhere():
    probs, labels = np.full((3, 7), 1 / 7, dtype=np.float32), np.array([0, 4, 6])
    assert METRICS["accuracy"](probs, labels) == pytest.approx(1 / 3)
    assert METRICS["top_5_accuracy"](probs, labels) == pytest.approx(2 / 3)
    assert METRICS["roc_auc_ovr"](np.full((4, 2), 0.5), np.array([0, 1, 0, 1])) == 0.5


def test_a_perfect_answer_scores_1_and_loses_0():
    labels = np.arange(6)
    probs = one_hot(labels, 6)
    values = {name: METRICS[name](probs, labels) for name in NAMES}
    assert values == pytest.approx({name: 0.0 if is_loss(name) else 1.0 for name in NAMES})


def test_an_answer_that_is_always_wrong_scores_0_and_loses_a_finite_amount():
    labels = np.array([0, 0, 1, 1])
    probs = one_hot(1 - labels, 2)
    scores = [METRICS[name](probs, labels) for name in NAMES if name.startswith(("macro", "acc"))]
    assert scores == [0.0] * 4
    assert METRICS["roc_auc_ovr"](probs, labels) == 0.0
    assert METRICS["expected_calibration_error"](probs, labels) == 1.0
    # scikit-learn clips at the smallest step of float64.
    assert METRICS["log_loss"](probs, labels) == pytest.approx(-math.log(np.finfo(float).eps))


def test_a_class_neither_present_nor_predicted_is_left_out_of_averages():
    probs, labels = one_hot(np.array([0, 1, 1]), 3), np.array([0, 1, 1])
    assert METRICS["macro_f1"](probs, labels) == 1.0
    assert METRICS["macro_recall"](probs, labels) == 1.0


def test_a_class_predicted_without_an_image_lowers_macro_f1_but_not_balanced_accuracy():
    probs, labels = one_hot(np.array([0, 0, 1, 2]), 3), np.array([0, 0, 1, 1])
    assert METRICS["macro_f1"](probs, labels) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert METRICS["balanced_accuracy"](probs, labels) == pytest.approx((1 + 1 / 2) / 2)


def test_the_calibration_error_is_the_gap_in_each_of_15_bins():
    # Two bins: 0.9 lies in (13/15, 14/15] and is right in 1 of 2, 0.6 in (8/15, 9/15] and right.
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 2 / 4 * abs(0.5 - 0.9) + 2 / 4 * abs(1.0 - 0.6)
    assert METRICS["expected_calibration_error"](probs, labels) == pytest.approx(expected)


def test_answers_in_one_bin_make_up_for_each_other():
    probs = np.array([[0.87, 0.13], [0.93, 0.07]])
    value = METRICS["expected_calibration_error"](probs, np.array([0, 1]))
    assert value == pytest.approx(abs(0.5 - 0.9))


@pytest.mark.parametrize("name", NAMES)
def test_without_images_every_figure_is_undefined(name):
    assert math.isnan(METRICS[name](np.empty((0, 6), np.float32), np.empty(0, np.int64)))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_top_5_accuracy_is_undefined_for_five_classes_or_fewer(num_classes):
    probs = np.full((4, num_classes), 1 / num_classes)
    assert math.isnan(METRICS["top_5_accuracy"](probs, np.zeros(4, np.int64)))


def test_roc_auc_is_undefined_where_a_class_has_no_image():
    probs = np.full((4, 3), 1 / 3)
    assert math.isnan(METRICS["roc_auc_ovr"](probs, np.array([0, 1, 0, 1])))


def test_a_single_class_leaves_loss_and_area_undefined():
    probs, labels = np.ones((3, 1)), np.zeros(3, np.int64)
    assert math.isnan(METRICS["log_loss"](probs, labels))
    assert math.isnan(METRICS["roc_auc_ovr"](probs, labels))
    assert METRICS["accuracy"](probs, labels) == 1.0


def test_a_split_that_holds_one_of_two_classes_has_every_figure_but_the_area():
    probs, labels = one_hot(np.array([0, 0, 1]), 2), np.zeros(3, np.int64)
    values = {name: METRICS[name](probs, labels) for name in NAMES}
    undefined = {name for name, value in values.items() if math.isnan(value)}
    assert undefined == {"roc_auc_ovr", "top_5_accuracy"}


@pytest.mark.parametrize(
    ("num_classes", "num_found"), [(2, 1), (2, 2), (5, 1), (5, 2), (5, 5), (6, 5), (6, 6)]
)
@pytest.mark.parametrize("name", sorted(METRICS))
def test_which_figures_are_defined_is_known_without_computing_them(
    name: str, num_classes: int, num_found: int
) -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(num_classes), 40)
    value = METRICS[name](probs, np.arange(40) % num_found)
    told = is_defined(f"val_{name}", num_classes=num_classes, num_found=num_found)
    assert told == np.isfinite(value)
