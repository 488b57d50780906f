"""Outputs of a network that exists nowhere: hand-made probabilities."""

import numpy as np
import pytest

from finetune.types import Outputs


@pytest.fixture
def make_outputs():
    """A function (predicted, labels, classes) -> Outputs that is 0.7 sure of each answer."""

    def make(predicted, labels, classes=("ants", "bees"), *, errors=None):
        num_classes = len(classes)
        rest = 0.3 / (num_classes - 1)
        probs = np.full((len(predicted), num_classes), rest, dtype=np.float32)
        probs[np.arange(len(predicted)), predicted] = 0.7
        probs[list(errors or {})] = np.nan
        names = tuple(f"{row}.jpg" for row in range(len(predicted)))
        return Outputs(names, np.array(labels, np.int64), probs, tuple(classes), errors or {})

    return make
