"""Fitted values applied to what a network says, kept in `finetune.json`, and read again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipys_softmax

from finetune.components.heads import MlpHead
from finetune.errors import BundleError, RecipeError
from finetune.model.bundle import Bundle, add_calibration, load_bundle, save_bundle
from finetune.model.calibration import NOVELTY_FILE, Calibration, softmax
from finetune.model.inference import InferenceOptions, predict
from finetune.model.input import preprocessing_of
from finetune.model.novelty import Novelty, directions
from finetune.types import Outputs
from tests.unit.model.conftest import MakeNetwork

CLASSES = ("ant", "bee", "wasp")


def novelty_of(width: int, *, rows: int = 7, threshold: float = 0.25) -> Novelty:
    generator = torch.Generator().manual_seed(0)
    reference = directions(torch.randn(rows, width, generator=generator)).half()
    return Novelty(reference, 2, threshold)


FITTED = Calibration(
    temperature=1.5,
    reject_at_precision=0.9,
    reject_threshold=0.6,
    conformal_coverage=0.8,
    conformal_threshold=0.3,
    reasons={"temperature": "least log loss"},
)


def outputs_of(logits: object, **values: object) -> Outputs:
    logits = np.array(logits, np.float32)
    names = tuple(f"{n}.jpg" for n in range(len(logits)))
    labels = np.full(len(logits), -1)
    return Outputs(names, labels, logits, CLASSES, logits=logits, **values)  # type: ignore[arg-type]


@given(
    logits=st.lists(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1),
    temperature=st.floats(0.05, 20),
)
@settings(max_examples=200, deadline=None)
def test_probabilities_are_scipys_and_the_likeliest_class_stays(logits, temperature) -> None:
    values = np.array(logits, np.float32)
    probs = softmax(values, temperature)
    expected = scipys_softmax(values.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(probs, expected, atol=2e-5)
    assert np.array_equal(probs.argmax(axis=1), softmax(values).argmax(axis=1))
    assert probs.max() <= 1


def test_probabilities_that_rounding_makes_equal_keep_their_order() -> None:
    values = np.array([[1.0, np.nextafter(np.float32(1), np.float32(2)), -3.0]], np.float32)
    assert softmax(values).argmax() == 1
    assert softmax(values, 20.0).argmax() == 1


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_a_temperature_probabilities_are_torchs(temperature) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(softmax(values.numpy(), temperature), values.softmax(dim=1).numpy())


def test_an_image_without_an_answer_has_no_set_and_is_not_rejected() -> None:
    found = FITTED.applied(outputs_of([[3, 0, 0], [np.nan] * 3, [0.1, 0, 0]]))
    assert found.sets.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert found.rejected.tolist() == [False, False, True]


def test_nothing_fitted_gives_plain_probabilities_and_nothing_else() -> None:
    found = Calibration().applied(outputs_of([[3, 0, 0]]))
    assert np.array_equal(found.probs, softmax(found.logits))
    assert (found.sets, found.rejected, found.novelty) == (None, None, None)


def test_outputs_without_logits_are_refused() -> None:
    plain = Outputs(("a",), np.array([-1]), np.full((1, 3), 1 / 3, np.float32), CLASSES)
    with pytest.raises(ValueError, match="these outputs have none"):
        FITTED.applied(plain)


def saved(make_network: MakeNetwork, folder: Path, **arguments: object) -> Bundle:
    network = make_network("test_resnet", **arguments).eval()  # type: ignore[arg-type]
    bundle = Bundle(network, CLASSES, preprocessing_of(network.backbone), {"recipe": {}})
    return save_bundle(bundle, folder, head=arguments.get("head"))  # type: ignore[arg-type]


def fitted(make_network: MakeNetwork, folder: Path) -> Bundle:
    bundle = saved(make_network, folder)
    width = bundle.network.answers(torch.zeros(1, 3, 160, 160))[1].shape[1]
    values = {name: getattr(FITTED, name) for name in FITTED.__slots__}
    return add_calibration(bundle, Calibration(**{**values, "novelty": novelty_of(width)}))


def test_a_model_without_anything_fitted_says_null(make_network, tmp_path: Path) -> None:
    document = saved(make_network, tmp_path / "model").document
    assert {document[name] for name in Calibration().to_document() if "reasons" not in name} == {
        None
    }
    assert load_bundle(tmp_path / "model").calibration == Calibration()


def test_a_model_saved_before_there_was_any_loads(make_network, tmp_path: Path) -> None:
    saved(make_network, tmp_path / "model")
    file = tmp_path / "model" / "finetune.json"
    document = json.loads(file.read_text())
    for name in Calibration().to_document():
        del document[name]
    file.write_text(json.dumps(document))
    assert load_bundle(tmp_path / "model").calibration == Calibration()


def test_what_was_fitted_is_read_again_and_weights_are_not_written_twice(
    make_network, tmp_path: Path
) -> None:
    bundle = saved(make_network, tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").stat()
    add_calibration(bundle, FITTED)
    assert (tmp_path / "model" / "model.safetensors").stat() == weights
    assert load_bundle(tmp_path / "model").calibration == FITTED


def test_a_saved_copy_has_the_same_doubts(make_network, tmp_path: Path) -> None:
    bundle = fitted(make_network, tmp_path / "model")
    save_bundle(load_bundle(tmp_path / "model"), tmp_path / "copy")
    copy = load_bundle(tmp_path / "copy").calibration
    assert copy.to_document() == bundle.calibration.to_document()
    assert torch.equal(copy.novelty.reference, bundle.calibration.novelty.reference)


def test_prediction_has_the_doubts_of_its_model(make_network, tmp_path: Path) -> None:
    bundle = fitted(make_network, tmp_path / "model")
    photos = [np.full((40, 40, 3), value, np.uint8) for value in (0, 90, 255)]
    found = predict(bundle, [*photos, tmp_path / "no.jpg"])
    kept = predict(
        Bundle(bundle.network, CLASSES, bundle.preprocessing, {}),
        photos,
        options=InferenceOptions(batch_size=2, keeps_features=True),
    )
    np.testing.assert_allclose(found.logits[:3], kept.logits, atol=1e-5)
    np.testing.assert_allclose(found.probs[:3], softmax(kept.logits, 1.5), atol=1e-5)
    expected = bundle.calibration.novelty.scores(torch.from_numpy(kept.features))
    np.testing.assert_allclose(found.novelty[:3], expected, rtol=1e-3)
    assert np.isnan(found.novelty[3])
    assert found.features is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "warm"), ("temperature", 0), ("reject_threshold", -1), ("temperature", True)],
)
def test_a_damaged_value_is_one_sentence(make_network, tmp_path: Path, name, value) -> None:
    saved(make_network, tmp_path / "model")
    file = tmp_path / "model" / "finetune.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(BundleError, match=rf"finetune\.json is damaged: {name} is {value!r}"):
        load_bundle(tmp_path / "model")


def test_a_missing_reference_is_one_sentence(make_network, tmp_path: Path) -> None:
    fitted(make_network, tmp_path / "model")
    (tmp_path / "model" / NOVELTY_FILE).unlink()
    with pytest.raises(BundleError, match=r"novelty\.safetensors cannot be read"):
        load_bundle(tmp_path / "model")


def test_a_reference_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    novelty_of(4, rows=1).save(tmp_path / NOVELTY_FILE)
    with pytest.raises(ValueError, match="has no 2 rows to compare with"):
        Novelty.load(tmp_path / NOVELTY_FILE, neighbour=2, threshold=0.5)


def test_a_calibration_needs_a_saved_model(make_network) -> None:
    network = make_network()
    bundle = Bundle(network, CLASSES, preprocessing_of(network.backbone), {})
    with pytest.raises(ValueError, match="a model is saved before its calibration"):
        add_calibration(bundle, FITTED)


@pytest.mark.parametrize("head", [None, MlpHead(hidden=8)])
def test_features_come_with_the_logits_in_one_pass(make_network, head) -> None:
    network = make_network("test_resnet", head=head) if head else make_network("test_resnet")
    network = network.eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        logits, features = network.answers(images)
        torch.testing.assert_close(logits, network(images))
        torch.testing.assert_close(features, network.features(images))
    assert network.answering_modules()


def test_a_probe_still_refuses_a_head_that_is_not_linear(make_network) -> None:
    network = make_network("test_resnet", head=MlpHead(hidden=8))
    with pytest.raises(RecipeError, match="solver: probe fits a linear head"):
        network.head_inputs(torch.zeros(1, 3, 160, 160))
