"""Both solvers of the probe on the features of real photos by real pretrained weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from finetune.components.preprocess import Preprocessing
from finetune.data.decode import decode
from finetune.model.backbone import create_backbone
from finetune.train.linear import Features
from finetune.train.probe import Probe, fit_probe

pytestmark = pytest.mark.real

NUM_CLASSES = 10


@pytest.fixture(scope="module")
def textures(assets: Path) -> Features:
    """Features of the training photos of ten textures, scaled to unit variance."""
    folders = sorted((assets / "datasets" / "textures" / "train").iterdir())
    assert len(folders) == NUM_CLASSES
    paths = [path for folder in folders for path in sorted(folder.iterdir())]
    preprocessing = Preprocessing()
    transform = preprocessing.transform()
    backbone = create_backbone(f"local-dir:{assets / 'weights/mobilenetv2_100.in1k'}").eval()
    rows = []
    for first in range(0, len(paths), 32):
        read = [decode(path, max_pixels=10**8) for path in paths[first : first + 32]]
        images = preprocessing.normalize(torch.stack([transform(image) for image in read]))
        with torch.inference_mode():
            rows.append(backbone.forward_head(backbone.forward_features(images), pre_logits=True))
    values = torch.cat(rows).numpy()
    labels = np.array([folders.index(path.parent) for path in paths])
    return Features(((values - values.mean(0)) / values.std(0)).astype(np.float32), labels)


@pytest.fixture(scope="module")
def probes(textures: Features) -> tuple[Probe, Probe]:
    return tuple(
        fit_probe(textures, textures[:0], num_classes=NUM_CLASSES, solver=solver)
        for solver in ("scikit-learn", "torch")
    )


def test_both_solvers_choose_the_same_strength_of_real_features(probes) -> None:
    assert probes[0].strength == probes[1].strength


def test_torch_finds_the_minimum_of_real_features(textures, probes) -> None:
    strength = probes[1].strength
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    expected = model.fit(textures.values.astype(np.float64), textures.labels)
    np.testing.assert_allclose(
        probes[1].model.probabilities(textures.values),
        expected.predict_proba(textures.values),
        atol=1e-3,
    )
