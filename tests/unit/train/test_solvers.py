"""Both solvers find scikit-learn's minimum; the larger problem goes to torch."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from finetune.train.linear import Features, LinearModel
from finetune.train.solvers import (
    LARGE,
    ScikitSolver,
    Solver,
    SolverName,
    TorchSolver,
    choose_solver,
    make_solver,
)

NAMES: list[SolverName] = ["scikit-learn", "torch"]
PENALTIES = [1.0, 0.1, 0.01]


def make_features(num: int, *, num_classes: int, width: int, distance: float = 0.5) -> Features:
    """Clusters of unit variance or nearly so, stretched along some directions."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(num) % num_classes)
    stretched = rng.normal(size=(num, width)) * np.logspace(1, -1, width)
    turned = stretched @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    values = turned + distance * rng.normal(size=(num_classes, width))[labels]
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return Features(values.astype(np.float32), labels.astype(np.int64))


def solver_of(name: SolverName, features: Features, *, num_classes: int, **options: bool) -> Solver:
    balanced = options.get("balanced", False)
    return make_solver(name, features, num_classes=num_classes, balanced=balanced, device="cpu")


def minimum(features: Features, penalty: float, *, balanced: bool = False) -> np.ndarray:
    """Probabilities at scikit-learn's minimum, far closer than a probe needs it."""
    model = LogisticRegression(
        C=1 / (penalty * len(features)),
        tol=1e-8,
        max_iter=10_000,
        class_weight="balanced" if balanced else None,
    )
    values = features.values.astype(np.float64)
    return model.fit(values, features.labels).predict_proba(values)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("num_classes", [2, 5])
def test_torch_finds_scikit_learns_minimum(num_classes: int, penalty: float) -> None:
    features = make_features(400, num_classes=num_classes, width=30)
    model = solver_of("torch", features, num_classes=num_classes).fit(penalty)
    expected = minimum(features, penalty)
    np.testing.assert_allclose(model.probabilities(features.values), expected, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_comes_close_to_each_minimum(name: SolverName) -> None:
    features = make_features(400, num_classes=4, width=30)
    models = list(solver_of(name, features, num_classes=4).path(PENALTIES))
    assert len(models) == len(PENALTIES)
    for model, penalty in zip(models, PENALTIES, strict=True):
        # 0.02: enough to compare penalties, and what scikit-learn's own tolerance gives
        np.testing.assert_allclose(
            model.probabilities(features.values), minimum(features, penalty), atol=0.02
        )


@pytest.mark.parametrize("num_images", [40, 400])
def test_torch_finds_the_minimum_of_separable_features(num_images: int) -> None:
    features = make_features(num_images, num_classes=3, width=60, distance=5.0)
    model = solver_of("torch", features, num_classes=3).fit(1e-4)
    found = model.probabilities(features.values)
    np.testing.assert_allclose(found, minimum(features, 1e-4), atol=1e-3)
    assert (found.argmax(axis=1) == features.labels).all()


def test_torch_finds_the_minimum_of_balanced_classes() -> None:
    features = make_features(400, num_classes=4, width=20)
    rare = features[np.flatnonzero((features.labels > 0) | (np.arange(400) < 40))]
    model = solver_of("torch", rare, num_classes=4, balanced=True).fit(0.01)
    expected = minimum(rare, 0.01, balanced=True)
    np.testing.assert_allclose(model.probabilities(rare.values), expected, atol=1e-3)


def test_where_torch_starts_does_not_change_where_it_ends() -> None:
    features = make_features(400, num_classes=3, width=20)
    solver = solver_of("torch", features, num_classes=3)
    rng = np.random.default_rng(1)
    far = LinearModel(rng.normal(size=(3, 20)), rng.normal(size=3))
    near, apart = solver.fit(0.01), solver.fit(0.01, start=far)
    np.testing.assert_allclose(
        near.probabilities(features.values), apart.probabilities(features.values), atol=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_class_without_an_image_is_never_the_answer(name: SolverName) -> None:
    features = make_features(200, num_classes=3, width=10)
    moved = Features(features.values, np.array([0, 2, 3])[features.labels])
    model = solver_of(name, moved, num_classes=5).fit(0.1)
    probs = model.probabilities(moved.values)
    np.testing.assert_allclose(probs[:, [0, 2, 3]], minimum(features, 0.1), atol=2e-3)
    assert probs[:, [1, 4]].max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_get_two_opposite_rows(name: SolverName) -> None:
    features = make_features(200, num_classes=2, width=10)
    model = solver_of(name, features, num_classes=2).fit(0.1)
    np.testing.assert_allclose(model.weight[0], -model.weight[1], atol=1e-5)


def test_a_feature_that_says_nothing_gets_no_weight() -> None:
    features = make_features(200, num_classes=3, width=10)
    features.values[:, 4] = 0.0
    model = solver_of("torch", features, num_classes=3).fit(0.01)
    np.testing.assert_allclose(model.weight[:, 4], 0.0, atol=1e-6)


def test_torch_gives_the_same_model_again() -> None:
    features = make_features(300, num_classes=3, width=20)
    first, second = (solver_of("torch", features, num_classes=3).fit(0.01) for _ in range(2))
    np.testing.assert_array_equal(first.weight, second.weight)


def test_chunks_of_images_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(300, num_classes=3, width=20)
    whole = solver_of("torch", features, num_classes=3).fit(0.01)
    monkeypatch.setattr("finetune.train.linear._CHUNK", 100)
    cut = solver_of("torch", features, num_classes=3).fit(0.01)
    np.testing.assert_allclose(
        whole.probabilities(features.values), cut.probabilities(features.values), atol=1e-4
    )


@pytest.mark.parametrize(
    ("num_images", "expected", "reason"),
    [
        (200, "scikit-learn", "200 images x 1,000 features x 100 classes are fewer than"),
        (LARGE // 100_000, "torch", "features x 100 classes are at least"),
    ],
)
def test_the_larger_problem_goes_to_torch(num_images: int, expected: str, reason: str) -> None:
    chosen = choose_solver(num_images, 1_000, 100)
    assert chosen.value == expected
    assert reason in chosen.reason


def test_the_name_chosen_is_the_solver_made() -> None:
    features = make_features(20, num_classes=2, width=4)
    assert isinstance(solver_of("scikit-learn", features, num_classes=2), ScikitSolver)
    assert isinstance(solver_of("torch", features, num_classes=2), TorchSolver)
