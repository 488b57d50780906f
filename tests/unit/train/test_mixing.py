"""What mixes a batch: which kind for which batches, and what mixing stored activations gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.recipe.schema import TrainingSection
from finetune.train.mixing import ManifoldMixup, make_mix

NUM_CLASSES = 5


def test_nothing_is_mixed_unless_asked_for() -> None:
    for is_stored in (False, True):
        assert make_mix(TrainingSection(), NUM_CLASSES, is_stored=is_stored) is None


def test_images_and_what_is_stored_are_mixed_by_their_own_kind() -> None:
    of_stored = TrainingSection(manifold_mixup=0.4)
    assert make_mix(of_stored, NUM_CLASSES, is_stored=False) is None
    assert isinstance(make_mix(of_stored, NUM_CLASSES, is_stored=True), ManifoldMixup)
    of_images = TrainingSection(mixup=0.4, cutmix=1.0)
    assert make_mix(of_images, NUM_CLASSES, is_stored=True) is None
    assert make_mix(of_images, NUM_CLASSES, is_stored=False) is not None


@given(
    seed=st.integers(0, 2**31), size=st.integers(1, 9), alpha=st.sampled_from((0.1, 0.4, 1.0, 8.0))
)
def test_each_image_is_mixed_with_the_one_before_it_by_one_share(
    seed: int, size: int, alpha: float
) -> None:
    torch.manual_seed(seed)
    crossing = (torch.randn(size, 3, 2), torch.randn(size, 4))
    labels = torch.randint(NUM_CLASSES, (size,))
    mixed, targets = ManifoldMixup(alpha, NUM_CLASSES)(crossing, labels)
    assert targets.sum(1).tolist() == pytest.approx([1.0] * size)
    assert bool((targets >= 0).all())
    share = next((float(row[own]) for row, own, other in rows(targets, labels) if own != other), 1)
    for part, ours in zip(crossing, mixed, strict=True):
        for place in range(size):
            expected = share * part[place] + (1 - share) * part[place - 1]
            if labels[place] != labels[place - 1]:
                torch.testing.assert_close(ours[place], expected, atol=1e-5, rtol=1e-4)


def rows(targets: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, int, int]]:
    """Give of each image its target, its label and that of the one before it."""
    own = labels.tolist()
    return [(targets[place], own[place], own[place - 1]) for place in range(len(own))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_mixed_keeps_its_kind_and_the_seed_says_the_share(dtype: torch.dtype) -> None:
    mix = ManifoldMixup(0.4, NUM_CLASSES)
    crossing, labels = (torch.randn(4, 6).to(dtype),), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(1)
    (first,), targets = mix(crossing, labels)
    torch.manual_seed(1)
    (again,), _ = mix(crossing, labels)
    assert first.dtype == dtype
    assert targets.dtype == torch.float32
    assert torch.equal(first, again)
