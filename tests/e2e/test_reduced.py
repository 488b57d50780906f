"""`data.decode: reduced`: one setting for training, its figures and every later prediction."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune import load
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe

pytestmark = pytest.mark.slow  # each test trains once or more

COLOURS = {"blue": (40, 60, 200), "green": (40, 170, 60), "red": (200, 50, 40)}
SIZE = (400, 300)  # an input of 32 px is resized to 36, so an eighth would do but for 37.5 rows
TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def photo(name: str, number: int) -> Image.Image:
    """Noise of one colour, in squares that a smaller scale does not average away."""
    rng = np.random.default_rng(number)
    noise = np.kron(rng.normal(0, 60, (30, 40, 3)), np.ones((10, 10, 1)))
    return Image.fromarray(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in COLOURS:
        (folder / name).mkdir()
        for number in range(8):
            photo(name, number).save(folder / name / f"{number}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def done(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = {
        "model": {"backbone": "test_byobnet", "pretrained": False, "image_size": 32},
        "data": {"path": str(photos), "decode": "reduced"},
        "stages": [
            {"name": "full", "train": "all", "epochs": 3, "lr": 3e-3},
        ],
        "training": {"batch_size": 8},
        "runtime": {"precision": "fp32", "device": "cpu"},
    }
    return run(load_recipe(recipe), out=tmp_path_factory.mktemp("reduced") / "run")


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*.jpg"))


def predicted(folder: Path, paths: list[Path], out: Path) -> np.ndarray:
    """The probabilities that the command line writes, (N, K)."""
    command = [sys.executable, "-m", "finetune", "predict", str(folder), *map(str, paths)]
    answer = subprocess.run([*command, "--out", str(out)], capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[f"p_{name}"]) for name in COLOURS] for row in rows])


def test_the_setting_stands_in_the_model_and_in_the_recipe(done: Run) -> None:
    document = json.loads((done.folder / "model" / "finetune.json").read_text())
    assert document["preprocessing"]["decode"] == "reduced"
    assert done.bundle.preprocessing.decode == "reduced"
    assert load_recipe(done.folder / "recipe.yaml").data.decode == "reduced"


def test_the_command_line_and_python_predict_as_the_figures_were_made(
    done: Run, paths: list[Path], tmp_path: Path
) -> None:
    probs = load(done.folder, device="cpu").predict_proba(paths)
    np.testing.assert_allclose(predicted(done.folder, paths, tmp_path / "a.csv"), probs, atol=1e-6)
    outputs = done.results["test"].outputs
    by_name = {f"{path.parent.name}/{path.name}": row for path, row in zip(paths, probs, strict=1)}
    expected = np.array([by_name[name] for name in outputs.names])
    np.testing.assert_allclose(outputs.probs, expected, atol=1e-6)


def test_a_model_saved_before_the_setting_existed_predicts_in_full(
    done: Run, paths: list[Path], tmp_path: Path
) -> None:
    reduced = load(done.folder, device="cpu")
    full = load(_without_setting(done, tmp_path), device="cpu")
    assert full.bundle_.preprocessing.decode == "full"
    pictures = [Image.open(path) for path in paths]
    expected = full.predict_proba(paths)
    np.testing.assert_array_equal(full.predict_proba(pictures), expected)
    np.testing.assert_array_equal(reduced.predict_proba(pictures), expected)
    difference = np.abs(reduced.predict_proba(paths) - expected)
    assert 0 < difference.max() < 0.05


@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_photo_has_the_same_prediction(
    done: Run, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0}
    photo("green", 99).save(tmp_path / "upright.jpg", **options)
    stored = photo("green", 99).transpose(TURNS[orientation])
    stored.save(tmp_path / "turned.jpg", exif=exif, **options)
    upright, turned = load(done.folder, device="cpu").predict_proba(
        [tmp_path / "upright.jpg", tmp_path / "turned.jpg"]
    )
    np.testing.assert_allclose(turned, upright, atol=0.01)


def _without_setting(done: Run, folder: Path) -> Path:
    """Copy a saved model, its `finetune.json` as it was before."""
    for file in (done.folder / "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / "finetune.json").read_text())
    del document["preprocessing"]["decode"]
    (folder / "finetune.json").write_text(json.dumps(document))
    return folder
