"""The probe is scikit-learn's fit, its scaling folded in, its strength chosen honestly."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from finetune.train.linear import Features, LinearModel
from finetune.train.probe import PENALTIES, fit_probe
from finetune.train.solvers import SolverName


def make_features(num: int, *, num_classes: int, width: int, seed: int = 0) -> Features:
    """Clusters on coordinates of very different scales."""
    centres = np.random.default_rng(7).normal(size=(num_classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    values = centres[labels] + rng.normal(size=(num, width))
    scales = np.logspace(-2, 2, width)
    return Features((values * scales + 5 * scales).astype(np.float32), labels.astype(np.int64))


def no_features(width: int) -> Features:
    return make_features(0, num_classes=2, width=width)


# scikit-learn's own tolerance is the looser one
@pytest.mark.parametrize(("solver", "tolerance"), [("scikit-learn", 0.02), ("torch", 1e-3)])
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("width", [6, 300])
def test_probabilities_equal_scikit_learns_on_scaled_features(
    num_classes: int, width: int, solver: SolverName, tolerance: float
) -> None:
    train = make_features(120, num_classes=num_classes, width=width)
    val = make_features(100, num_classes=num_classes, width=width, seed=1)
    probe = fit_probe(train, val, num_classes=num_classes, solver=solver)
    scaler = StandardScaler().fit(train.values)
    model = LogisticRegression(C=probe.strength, max_iter=5000, tol=1e-7)
    model.fit(scaler.transform(train.values), train.labels)
    expected = model.predict_proba(scaler.transform(val.values))
    np.testing.assert_allclose(probe.model.probabilities(val.values), expected, atol=tolerance)


@pytest.mark.parametrize("num_val", [0, 100])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_both_solvers_choose_the_same_strength(num_classes: int, num_val: int) -> None:
    train = make_features(150, num_classes=num_classes, width=6)
    val = make_features(num_val, num_classes=num_classes, width=6, seed=1)
    first = fit_probe(train, val, num_classes=num_classes, solver="scikit-learn")
    second = fit_probe(train, val, num_classes=num_classes, solver="torch")
    assert first.strength == second.strength


def test_the_solver_is_chosen_by_size_and_says_so() -> None:
    probe = fit_probe(make_features(60, num_classes=3, width=5), no_features(5), num_classes=3)
    assert probe.solver.value == "scikit-learn"
    assert probe.solver.reason.startswith("60 images x 5 features x 3 classes are fewer than")


def test_two_classes_get_two_symmetric_rows() -> None:
    train = make_features(60, num_classes=2, width=5)
    probe = fit_probe(train, no_features(5), num_classes=2)
    np.testing.assert_allclose(probe.model.weight[0], -probe.model.weight[1])


def test_strength_comes_from_validation_where_that_is_large() -> None:
    train = make_features(60, num_classes=3, width=5)
    val = make_features(120, num_classes=3, width=5, seed=1)
    probe = fit_probe(train, val, num_classes=3)
    assert probe.reason == "least log loss on 120 validation images"


def test_strength_comes_from_folds_where_validation_is_small() -> None:
    train = make_features(60, num_classes=3, width=5)
    val = make_features(9, num_classes=3, width=5, seed=1)
    probe = fit_probe(train, val, num_classes=3)
    assert probe.reason == "least log loss over 5 folds of the training part"


def test_one_fold_of_many_images_is_enough() -> None:
    train = make_features(5000, num_classes=3, width=5)
    probe = fit_probe(train, no_features(5), num_classes=3)
    assert probe.reason == "least log loss on 1,000 training images held out"


def test_one_image_a_class_is_fitted_without_folds() -> None:
    train = make_features(7, num_classes=7, width=50)
    probe = fit_probe(train, no_features(50), num_classes=7)
    assert probe.reason == "each class has one training image, so none could be held out"
    assert (probe.model.probabilities(train.values).argmax(axis=1) == train.labels).all()


@pytest.mark.parametrize("solver", ["scikit-learn", "torch"])
def test_the_only_image_of_a_class_is_never_held_out(solver: SolverName) -> None:
    train = make_features(40, num_classes=2, width=5)[np.r_[0, 1:40:2]]  # one of class 0
    probe = fit_probe(train, no_features(5), num_classes=2, solver=solver)
    assert probe.reason == "least log loss over 5 folds of the training part"


@pytest.mark.parametrize("solver", ["scikit-learn", "torch"])
def test_a_constant_feature_gets_no_weight(solver: SolverName) -> None:
    train = make_features(60, num_classes=2, width=5)
    values = np.hstack([train.values, np.full((60, 1), 3.1, dtype=np.float32)])
    probe = fit_probe(Features(values, train.labels), no_features(6), num_classes=2, solver=solver)
    np.testing.assert_allclose(probe.model.weight[:, 5], 0.0, atol=1e-6)


def test_a_large_fit_copies_the_features_no_more_than_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune.train.linear._CHUNK", 10_000)  # small beside them
    train = make_features(6000, num_classes=2, width=100)
    tracemalloc.start()
    fit_probe(train, no_features(100), num_classes=2, solver="torch")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * train.values.nbytes  # labels and rows among it


@pytest.mark.parametrize("num_val", [0, 100])
def test_a_fit_in_mapped_files_is_the_same_and_takes_little_memory(
    num_val: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.train.linear._CHUNK", 10_000)  # small beside the features
    train = make_features(6000, num_classes=2, width=100)
    val = make_features(num_val, num_classes=2, width=100, seed=1)
    expected = fit_probe(train, val, num_classes=2, solver="torch")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("finetune.runtime.rows._IN_MEMORY_BYTES", 100_000)
    monkeypatch.setattr("finetune.runtime.rows._AT_ONCE_BYTES", 100_000)
    tracemalloc.start()
    found = fit_probe(train, val, num_classes=2, solver="torch")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found.model.weight, expected.model.weight)
    assert peak < 0.5 * train.values.nbytes


def test_a_probe_is_the_same_again() -> None:
    train = make_features(200, num_classes=3, width=20)
    first, second = (
        fit_probe(train, no_features(20), num_classes=3, solver="torch") for _ in range(2)
    )
    np.testing.assert_array_equal(first.model.weight, second.model.weight)


@pytest.mark.parametrize("num_images", [60, 2000])
def test_noise_is_answered_by_strong_regularisation(num_images: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(num_images, 40)).astype(np.float32)
    train = Features(values, rng.integers(0, 2, num_images))
    probe = fit_probe(train, Features(train.values[:0], train.labels[:0]), num_classes=2)
    assert probe.strength <= 1 / num_images  # as heavy as the loss of all images together


def test_balanced_probe_finds_the_rare_class_more_often() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 190 + [1] * 10)
    values = (rng.normal(size=(200, 3)) + labels[:, None]).astype(np.float32)
    none = Features(values[:0], labels[:0])
    plain = fit_probe(Features(values, labels), none, num_classes=2)
    fair = fit_probe(Features(values, labels), none, num_classes=2, balanced=True)
    assert (fair.model.probabilities(values)[:, 1] > 0.5).sum() > (
        plain.model.probabilities(values)[:, 1] > 0.5
    ).sum()


FIRST_FIT = """
import sys
import numpy as np
import threadpoolctl
from finetune.train.linear import Features
from finetune.train.probe import PENALTIES, fit_probe

limits = threadpoolctl.threadpool_limits

def seen(number):
    limited = limits(number)
    print(number, "sklearn.linear_model" in sys.modules, "scipy.linalg" in sys.modules)
    return limited

threadpoolctl.threadpool_limits = seen
values = np.arange(8, dtype=np.float32).reshape(4, 2)
empty = Features(np.empty((0, 2), np.float32), np.empty(0, np.int64))
fit_probe(Features(values, np.array([0, 0, 1, 1])), empty, num_classes=2)
"""


@pytest.mark.slow
def test_the_libraries_of_a_first_fit_are_loaded_when_their_threads_are_limited() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FIRST_FIT]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout == "1 True True\n"


def test_what_belongs_together_is_held_out_together() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40).astype(np.int64)
    bursts = np.repeat(np.arange(24), 5).astype(np.int64)
    # A burst is told by itself alone: its frames are alike, its class is in none of its values.
    values = generator.normal(size=(24, 30))[bursts] + 0.05 * generator.normal(size=(120, 30))
    plain = Features(values.astype(np.float32), labels)
    none = Features(np.empty((0, 30), np.float32), np.empty(0, np.int64))
    alone = fit_probe(plain, none, num_classes=3)
    together = fit_probe(replace(plain, units=bursts), none, num_classes=3)
    assert together.strength < alone.strength / 10
    assert together.reason == "least log loss over 5 folds of the training part"


def test_units_of_one_image_each_change_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20).astype(np.int64)
    values = (generator.normal(size=(60, 8)) + labels[:, None]).astype(np.float32)
    none = Features(np.empty((0, 8), np.float32), np.empty(0, np.int64))
    plain = fit_probe(Features(values, labels), none, num_classes=3)
    single = fit_probe(Features(values, labels, np.arange(60)), none, num_classes=3)
    assert (single.strength, single.reason) == (plain.strength, plain.reason)
    assert np.array_equal(single.model.weight, plain.model.weight)


def test_a_class_in_one_group_is_never_held_out() -> None:
    labels = np.array([0] * 6 + [1] * 6, np.int64)
    units = np.array([0] * 6 + [1, 1, 2, 2, 3, 3], np.int64)
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    none = Features(np.empty((0, 4), np.float32), np.empty(0, np.int64))
    found = fit_probe(Features(values, labels, units), none, num_classes=2)
    assert np.isfinite(found.model.weight).all()
    one_each = Features(values, labels, labels)
    reason = fit_probe(one_each, none, num_classes=2).reason
    assert reason == "each class has one training group, so none could be held out"


def test_folds_that_hold_out_whole_classes_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([0, 0, 1, 1], np.int64)
    features = Features(np.eye(4, dtype=np.float32), labels)

    def by_class(labels: np.ndarray, *_: object) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.flatnonzero(labels != one), np.flatnonzero(labels == one)) for one in (0, 1)]

    monkeypatch.setattr("finetune.train.probe._folds", by_class)
    none = Features(np.empty((0, 4), np.float32), np.empty(0, np.int64))
    assert fit_probe(features, none, num_classes=2).reason == (
        "each fold would hold out all groups of its classes"
    )


@pytest.mark.parametrize("num_held", [(450, 20), (100, 100)])
def test_a_balanced_probe_is_judged_by_balanced_images(num_held: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)

    def clusters(*counts: int) -> Features:  # one direction of sixty tells the rare class
        labels = np.repeat([0, 1], counts)
        values = rng.normal(0, 1, (len(labels), 60)).astype(np.float32)
        values[labels == 1, 0] += 1.5
        return Features(values, labels)

    train, val = clusters(900, 40), clusters(*num_held)
    chosen = fit_probe(train, val, num_classes=2, balanced=True)
    # What is held out is as good to choose by where each class has as many: it is repeated so.
    rows = [np.flatnonzero(val.labels == label) for label in (0, 1)]
    even = val[np.concatenate([np.tile(part, 900 // len(part)) for part in rows])]
    assert fit_probe(train, even, num_classes=2, balanced=True).strength == chosen.strength
    assert chosen.strength < fit_probe(train, val, num_classes=2).strength * 10**3


def test_the_loss_may_weigh_classes() -> None:
    model = LinearModel(np.zeros((2, 1)), np.array([np.log(3.0), 0.0]))  # 3/4 and 1/4
    features = Features(np.zeros((4, 1), np.float32), np.array([0, 0, 0, 1]))
    plain = (3 * np.log(4 / 3) + np.log(4)) / 4
    assert model.log_loss(features) == pytest.approx(plain)
    weighed = (np.log(4 / 3) + np.log(4)) / 2
    assert model.log_loss(features, np.array([1.0, 3.0])) == pytest.approx(weighed)


@pytest.mark.parametrize(
    ("num_images", "width", "num_wrong", "seed"), [(40, 12, 4, 2), (60, 4, 3, 15)]
)
def test_the_search_ends_where_all_folds_together_are_worse(
    num_images: int, width: int, num_wrong: int, seed: int
) -> None:
    # Of folds with wrong labels one has its least loss early, and others are still getting better.
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    values = generator.normal(size=(2, width))[labels] + generator.normal(size=(num_images, width))
    wrong = generator.choice(num_images, num_wrong, replace=False)
    labels[wrong] = 1 - labels[wrong]
    train = Features(values.astype(np.float32), labels)
    probe = fit_probe(train, no_features(width), num_classes=2, solver="scikit-learn")

    order = np.random.default_rng(0).permutation(num_images)  # the probe's own
    scaled, shuffled = StandardScaler().fit_transform(train.values)[order], labels[order]
    losses = np.zeros(len(PENALTIES))
    for fit, held in StratifiedKFold(5).split(scaled, shuffled):
        for position, penalty in enumerate(PENALTIES):
            model = LogisticRegression(C=1 / (penalty * len(fit)), max_iter=1000)
            probs = model.fit(scaled[fit], shuffled[fit]).predict_proba(scaled[held])
            losses[position] += log_loss(shuffled[held], probs) / 5
    best = PENALTIES[int(losses.argmin())]
    assert probe.strength == pytest.approx(1 / (best * num_images))


def test_images_that_the_network_has_learned_from_do_not_judge_the_strength() -> None:
    train = make_features(60, num_classes=3, width=5)
    val = make_features(9, num_classes=3, width=5, seed=1)
    probe = fit_probe(replace(train, are_learned=True), val, num_classes=3)
    assert probe.reason == "least log loss on 9 validation images"
    without = fit_probe(replace(train, are_learned=True), no_features(5), num_classes=3)
    assert without.reason.startswith("least log loss over")
