"""A linear model says what scikit-learn says of the same weights."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from finetune.train.linear import Features, LinearModel

RNG = np.random.default_rng(0)
MODEL = LinearModel(
    RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
)
FEATURES = Features(RNG.normal(size=(50, 6)).astype(np.float32), RNG.integers(0, 4, 50))
LOGITS = FEATURES.values @ MODEL.weight.T + MODEL.bias


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    np.testing.assert_allclose(
        MODEL.probabilities(FEATURES.values), softmax(LOGITS, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("chunk", [1, 28, 1 << 20])
def test_log_loss_is_scikit_learns_in_chunks_of_any_size(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.train.linear._CHUNK", chunk)
    expected = log_loss(FEATURES.labels, softmax(LOGITS.astype(np.float64), axis=1))
    assert MODEL.log_loss(FEATURES) == pytest.approx(expected, rel=1e-6)


def test_a_hopeless_image_has_a_finite_loss() -> None:
    model = LinearModel(np.array([[500.0], [-500.0]]), np.zeros(2))
    image = Features(np.ones((1, 1), np.float32), np.array([1]))
    assert model.log_loss(image) == pytest.approx(1000.0)


def test_a_slice_of_features_shares_their_memory() -> None:
    assert np.shares_memory(FEATURES[:10].values, FEATURES.values)
    assert not np.shares_memory(FEATURES[np.arange(10)].values, FEATURES.values)
