"""Cross entropy whose weights are those of images."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from finetune.train.loss import CrossEntropy, balanced_weights

NUM_CLASSES = 4


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("is_soft", [False, True])
def test_without_weights_it_is_torchs(label_smoothing: float, is_soft: bool) -> None:
    logits, labels = draw(8, NUM_CLASSES), torch.arange(8) % NUM_CLASSES
    targets = draw(8, NUM_CLASSES, seed=1).softmax(dim=1) if is_soft else labels
    expected = nn.CrossEntropyLoss(label_smoothing=label_smoothing)(logits, targets)
    found = CrossEntropy(label_smoothing=label_smoothing)(logits, targets)
    torch.testing.assert_close(found, expected)


def test_a_weight_of_two_counts_as_two_images() -> None:
    logits, labels = draw(6, NUM_CLASSES), torch.tensor([0, 1, 1, 2, 3, 3])
    weights = torch.tensor([2.0, 1.0, 1.0, 2.0])
    twice = torch.tensor([0, 0, 1, 2, 3, 4, 4, 5, 5])
    found = CrossEntropy(weights, label_smoothing=0.1)(logits, labels)
    expected = functional.cross_entropy(
        logits[twice], labels[twice], reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(found, expected / len(labels))


def test_batches_of_equal_size_have_the_mean_of_all_as_their_mean() -> None:
    logits, labels = draw(32, 2), torch.zeros(32, dtype=torch.int64)
    labels[5] = 1  # the rare one is in the first batch
    compute = CrossEntropy(torch.tensor([16 / 31, 16.0]))
    parts = [compute(logits[rows], labels[rows]) for rows in (slice(16), slice(16, 32))]
    torch.testing.assert_close(torch.stack(parts).mean(), compute(logits, labels))


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_smoothing_and_mixing_do_not_pay_for_naming_the_rare_class(share: float) -> None:
    weights = torch.tensor([940 / 1800, 940 / 80])  # 900 photos and 40
    targets = torch.tensor([[share, 1 - share]])
    compute = CrossEntropy(weights, label_smoothing=0.1)
    chances = torch.linspace(0.01, 0.99, 99)
    losses = [compute(torch.stack([1 - p, p]).log()[None], targets) for p in chances]
    best = float(chances[int(torch.stack(losses).argmin())])
    # The target itself: a twentieth from smoothing beside what was mixed in.
    assert best == pytest.approx(0.9 * (1 - share) + 0.05, abs=0.01)


def test_a_mixed_image_counts_what_its_classes_do() -> None:
    weights, logits = torch.tensor([1.0, 3.0]), draw(1, 2)
    targets = torch.tensor([[0.25, 0.75]])
    expected = 2.5 * functional.cross_entropy(logits, targets)
    torch.testing.assert_close(CrossEntropy(weights)(logits, targets), expected)


def test_balanced_weights_are_scikit_learns_and_one_on_average() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    counts = np.array([900, 40, 60])
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = balanced_weights(counts)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


def test_a_class_without_training_images_has_a_finite_weight() -> None:
    assert torch.isfinite(balanced_weights(np.array([5, 0]))).all()
