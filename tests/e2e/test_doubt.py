"""What a model doubts, from the recipe to the table: fitted by a run, saved, told by predict."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import log_loss

from finetune import load
from finetune.cli.app import main
from finetune.errors import Problem, RecipeError
from finetune.model.bundle import load_bundle
from finetune.model.network import Network
from tests.conftest import write_colours

pytestmark = pytest.mark.slow  # each trains, once or more

CLASSES = ("blue", "green", "red")
# Smoothed labels make a network less sure than it should be.
RECIPE = """
model: {backbone: test_vit, pretrained: false}
augment: none
data: {val_fraction: 0.3, test_fraction: 0.3}
stages: [{name: head, train: head, epochs: 6, lr: 2e-2}]
training: {label_smoothing: 0.5}
runtime: {device: cpu, precision: fp32, workers: 0}
evaluate: {conformal_coverage: 0.8, reject_at_precision: 0.7}
"""


@dataclass(frozen=True)
class Doubting:
    """A run made by the command line, on photos of which some have a wrong label."""

    folder: Path
    data: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` says."""
        return json.loads((self.folder / "metrics.json").read_text())

    @property
    def document(self) -> dict[str, Any]:
        """What `finetune.json` says."""
        return json.loads((self.folder / "model" / "finetune.json").read_text())

    def predict(self, *paths: Path) -> list[dict[str, str]]:
        """Predict by the command line, and read the table."""
        out = self.folder.parent / "answers.csv"
        arguments = ["predict", str(self.folder), *map(str, paths), "--out", str(out)]
        assert main(arguments) == 0
        with out.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Doubting:
    folder = tmp_path_factory.mktemp("doubt")
    data = folder / "photos"
    write_colours(data, per_class=60)
    for number in range(0, 60, 6):  # one in six stands under the next colour
        for name, other in zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True):
            shutil.move(data / name / f"{name}_{number:02d}.png", data / other)
    (folder / "recipe.yaml").write_text(RECIPE)
    arguments = ["--data", str(data), "--recipe", str(folder / "recipe.yaml"), "--quiet"]
    assert main(["run", *arguments, "--out", str(folder / "run")]) == 0
    return Doubting(folder / "run", data)


def test_finetune_json_has_all_that_was_fitted(done: Doubting) -> None:
    found = done.document
    assert 0.05 <= found["temperature"] < 0.9
    assert (found["reject_at_precision"], found["conformal_coverage"]) == (0.7, 0.8)
    assert 0 < found["conformal_threshold"] < 1
    assert 0 <= found["reject_threshold"] < 1
    assert found["novelty_threshold"] > 0
    assert (done.folder / "model" / "novelty.safetensors").is_file()
    assert found["calibration_reasons"]["temperature"].startswith("least log loss on 54 ")


def test_metrics_have_before_and_after_and_what_was_fitted(done: Doubting) -> None:
    metrics = done.metrics
    assert metrics["calibration"]["temperature"] == done.document["temperature"]
    assert metrics["calibration"]["fitted_on"] == "val"
    for split in ("val", "test"):
        found = metrics["splits"][split]["calibration"]
        assert found["log_loss_after"] == metrics["splits"][split]["log_loss"]
        assert found["log_loss_after"] < found["log_loss_before"]
        assert found["ece_after"] == metrics["splits"][split]["expected_calibration_error"]
    assert metrics["splits"]["val"]["calibration"]["coverage_of_sets"] >= 0.8


def test_predict_has_the_columns_and_agrees_with_the_figures(done: Doubting) -> None:
    with (done.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    answers = done.predict(*(done.data / row["path"] for row in rows))
    assert list(answers[0]) == [
        "path", "predicted", "probability", "p_blue", "p_green", "p_red", "error",
        "set", "rejected", "ood",
    ]  # fmt: skip
    probs = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in answers])
    labels = [CLASSES.index(row["label"]) for row in rows]
    figures = done.metrics["splits"]["test"]
    assert log_loss(labels, probs / probs.sum(1, keepdims=True)) == pytest.approx(
        figures["log_loss"], abs=1e-5
    )
    told = figures["calibration"]
    assert sum(row["rejected"] == "True" for row in answers) == told["num_rejected"]
    covered = [label in row["set"].split("|") for label, row in zip(
        (row["label"] for row in rows), answers, strict=True
    )]  # fmt: skip
    assert np.mean(covered) == pytest.approx(told["coverage_of_sets"])
    assert sum(float(row["ood"]) > 1 for row in answers) == told["num_novel"]


def test_the_network_keeps_its_logits_and_predict_divides_them(done: Doubting) -> None:
    bundle = load_bundle(done.folder)
    path = done.data / "red" / "red_01.png"
    with Image.open(path) as image, torch.inference_mode():
        batch = bundle.preprocessing.transform()(image.convert("RGB"))[None]
        logits = bundle.network(bundle.preprocessing.normalize(batch))
    expected = (logits / done.document["temperature"]).softmax(dim=1)[0]
    (answer,) = done.predict(path)
    found = [float(answer[f"p_{name}"]) for name in CLASSES]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert answer["predicted"] == CLASSES[int(logits.argmax())]


def test_python_says_the_same(done: Doubting) -> None:
    path = done.data / "green" / "green_01.png"
    (answer,) = done.predict(path)
    classifier = load(done.folder, device="cpu")
    table = classifier.predict_table([path, done.data / "none.png"])
    assert list(table.columns) == list(answer)
    assert "|".join(table.loc[0, "set"]) == answer["set"]
    assert str(table.loc[0, "rejected"]) == answer["rejected"]
    assert table.loc[0, "ood"] == pytest.approx(float(answer["ood"]), rel=1e-4)
    assert table.loc[1, "error"] == "no such file"
    np.testing.assert_array_equal(
        classifier.predict_proba([path])[0], table.loc[0, ["p_blue", "p_green", "p_red"]]
    )


def test_noise_is_unlike_the_training_photos(done: Doubting, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(32, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    known, new = done.predict(done.data / "blue" / "blue_01.png", tmp_path / "noise.png")
    assert float(new["ood"]) > 1 > float(known["ood"])


def test_a_run_that_asks_for_nothing_has_no_columns_and_nulls(
    tiny_folder: Path, tmp_path: Path
) -> None:
    arguments = ["run", "--data", str(tiny_folder), "--recipe", "probe", "--quiet"]
    arguments += ["--backbone", "test_vit", "--no-pretrained", "--device", "cpu"]
    arguments += ["--set", "evaluate.novelty=false", "--set", "evaluate.temperature=false"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    done = Doubting(tmp_path / "run", tiny_folder)
    names = ("temperature", "reject_threshold", "conformal_threshold", "novelty_threshold")
    assert {done.document[name] for name in names} == {None}
    assert not (done.folder / "model" / "novelty.safetensors").exists()
    (answer,) = done.predict(tiny_folder / "red" / "red_00.png")
    assert list(answer)[-1] == "error"


def test_a_probe_lends_its_features_so_that_no_photo_is_seen_twice(
    tiny_folder: Path, tmp_path: Path
) -> None:
    from finetune.pipeline import run
    from finetune.recipe.load import load_recipe
    from finetune.train.events import Event, Progressed

    events: list[Event] = []
    document = {
        "model": {"backbone": "test_resnet", "pretrained": False},
        "data": {"path": str(tiny_folder)},
        "stages": [{"name": "head", "train": "head", "solver": "probe"}],
        "seed": 91,  # a network of its own, so that no other test has stored its features
        "runtime": {"device": "cpu", "precision": "fp32"},
    }
    done = run(load_recipe(document), out=tmp_path / "run", on_event=events.append)
    assert done.bundle.calibration.novelty is not None
    passes = {event.what for event in events if isinstance(event, Progressed)}
    assert "features" in passes
    assert "novelty" not in passes


def test_a_backbone_without_features_to_compare_has_no_novelty_and_says_why(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: Network) -> None:
        raise RecipeError([Problem("stages", "this one is odd")])

    monkeypatch.setattr(Network, "answering_modules", refuse)
    arguments = ["run", "--data", str(tiny_folder), "--recipe", "probe", "--quiet"]
    arguments += ["--backbone", "test_vit", "--no-pretrained", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    found = Doubting(tmp_path / "run", tiny_folder).document
    assert found["novelty_threshold"] is None
    assert found["calibration_reasons"]["novelty_threshold"] == (
        "the classifier of this backbone is linear in no features"
    )
