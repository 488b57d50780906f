"""Grey photos and photos of four bands, from the folder to the saved model and back."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune import Classifier, load
from finetune.data.decode import decode
from finetune.errors import DataError, RecipeError
from finetune.model.bundle import load_bundle
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe
from finetune.train.events import Event, Warned

pytestmark = pytest.mark.slow  # each test trains once or more

CLASSES = ("bright", "dark", "mixed")
NUM_PER_CLASS = 10
PROBE = {"name": "head", "train": "head", "solver": "probe"}
FULL = {"name": "full", "train": "all", "epochs": 2, "lr": 1e-3}
# Mean and spread of the pixels; the last band alone tells bright from mixed where there are four.
LEVELS = {"bright": (180, 200), "dark": (60, 60), "mixed": (180, 40)}
MakeRun = Callable[..., tuple[Run, list[Event]]]


def bands(name: str, number: int, *, num_bands: int) -> np.ndarray:
    rng = np.random.default_rng(100 * CLASSES.index(name) + number)
    noise = rng.normal(0, 20, size=(40, 48, num_bands))
    first, last = LEVELS[name]
    means = [first] * (num_bands - 1) + [last] if num_bands > 1 else [(first + last) / 2]
    return np.clip(np.array(means) + noise, 0, 255).astype(np.uint8)


def write_grey(folder: Path) -> Path:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(NUM_PER_CLASS):
            pixels = bands(name, number, num_bands=1)[:, :, 0]
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def write_four(folder: Path) -> Path:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(NUM_PER_CLASS):
            pixels = bands(name, number, num_bands=4)
            buffer = io.BytesIO()
            Image.frombytes("RGBA", (48, 40), pixels.tobytes()).save(buffer, "TIFF")
            # As satellite images say it: the fourth is no alpha. Pillow alone would drop it.
            alpha, nothing = (struct.pack("<HHIH", 338, 3, 1, meaning) for meaning in (2, 0))
            data = buffer.getvalue().replace(alpha, nothing)
            (folder / name / f"{number}.tif").write_bytes(data)
    return folder


def test_pillow_alone_would_lose_the_fourth_band_of_these_photos(tmp_path: Path) -> None:
    folder = write_four(tmp_path / "photos")
    with Image.open(folder / "dark" / "0.tif") as image:
        assert image.getbands() == ("R", "G", "B")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(data: Path, in_chans: int, **values: object) -> tuple[Run, list[Event]]:
        events: list[Event] = []
        document = {
            "data": {"path": str(data)},
            "augment": "strong",
            "runtime": {"precision": "fp32", "device": "cpu"},
            "stages": [PROBE, FULL],
            "training": {"batch_size": 8},
            **values,
        }
        model = {"backbone": "test_byobnet", "pretrained": False, "in_chans": in_chans}
        recipe = load_recipe({**document, "model": {**model, **values.get("model", {})}})
        return run(recipe, out=tmp_path / "run", on_event=events.append), events

    return make


def logits_of_timm(folder: Path, pictures: list[Image.Image]) -> torch.Tensor:
    """What timm alone makes of a saved model, by its own transform."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return model(torch.stack([transform(picture) for picture in pictures]))


@pytest.mark.parametrize("backbone", ["test_byobnet", "test_vit"])
@pytest.mark.parametrize(("in_chans", "write"), [(1, write_grey), (4, write_four)])
def test_a_folder_becomes_a_model_that_timm_loads(
    make_run: MakeRun, tmp_path: Path, backbone: str, in_chans: int, write: Callable[[Path], Path]
) -> None:
    data = write(tmp_path / "photos")
    done, _ = make_run(data, in_chans, model={"backbone": backbone})
    assert done.results["test"].figures.accuracy is not None
    paths = sorted(data.glob("*/*"))[::4]
    probs = load(done.folder, device="cpu").predict_proba(paths)
    assert probs.shape == (8, 3)

    pictures = [decode(path, max_pixels=10**6, channels=in_chans) for path in paths]
    expected = logits_of_timm(done.folder / "model", pictures)
    bundle = load_bundle(done.folder)
    batch = torch.stack([bundle.preprocessing.transform()(picture) for picture in pictures])
    with torch.inference_mode():
        logits = bundle.network.eval()(bundle.preprocessing.normalize(batch))
    assert torch.equal(logits, expected)
    # Prediction runs in another memory format: equal but for rounding.
    assert np.allclose(probs, expected.softmax(1).numpy(), atol=1e-5)


def test_a_probe_reads_the_fourth_band(make_run: MakeRun, tmp_path: Path) -> None:
    done, _ = make_run(write_four(tmp_path / "photos"), 4, stages=[PROBE], augment="none")
    assert done.results["test"].figures.accuracy == 1.0


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("grey")
    recipe = {
        "model": {"backbone": "test_byobnet", "pretrained": False, "in_chans": 1},
        "augment": "none",
        "stages": [PROBE],
    }
    classifier = Classifier(recipe=recipe, out=folder / "run", device="cpu")
    return classifier.fit(write_grey(folder / "photos"))


def test_the_saved_preprocessing_says_what_an_image_becomes(grey: Classifier) -> None:
    document = json.loads((grey.run_.folder / "model" / "finetune.json").read_text())
    saved = document["preprocessing"]
    assert (saved["input_size"][0], saved["colour"], len(saved["mean"])) == (1, "grey", 1)


def test_arrays_and_pictures_of_one_channel_are_predicted_alike(grey: Classifier) -> None:
    pixels = bands("dark", 0, num_bands=1)
    forms = [pixels, pixels[:, :, 0], Image.fromarray(pixels[:, :, 0])]
    single = [grey.predict_proba(form) for form in forms]
    together = grey.predict_proba(forms)
    assert all(np.allclose(one, together[:1], atol=1e-6) for one in single)
    assert grey.predict(np.stack([pixels[:, :, 0]] * 2)).shape == (2,)


def test_a_colour_photo_is_predicted_by_its_luma(grey: Classifier) -> None:
    colour = Image.fromarray(np.dstack([bands("dark", 0, num_bands=1)] * 3))
    assert np.allclose(
        grey.predict_proba(colour), grey.predict_proba(colour.convert("L")), atol=1e-6
    )


def test_an_array_of_colours_is_told_what_a_grey_image_is(grey: Classifier) -> None:
    with pytest.raises(DataError) as caught:
        grey.predict([np.zeros((40, 48, 3), np.uint8)])
    assert caught.value.message == (
        "an array of a grey image is uint8 of shape (height, width) or (height, width, 1), "
        "not uint8 of shape (40, 48, 3)"
    )


def test_images_of_three_bands_among_four_are_left_out_by_name(
    make_run: MakeRun, tmp_path: Path
) -> None:
    data = write_four(tmp_path / "photos")
    Image.new("RGB", (48, 40)).save(data / "dark" / "colour.png")
    Image.new("L", (48, 40)).save(data / "mixed" / "grey.png")
    done, events = make_run(data, 4, stages=[PROBE])
    warning = (
        "2 of 32 images cannot be read, left out: dark/colour.png (has 3 bands, the network takes "
        "4), mixed/grey.png (has 1 band, the network takes 4)"
    )
    assert warning in [event.message for event in events if isinstance(event, Warned)]
    assert len(done.index.samples) == 30
    outcome = load(done.folder, device="cpu")
    with pytest.raises(DataError, match="has 3 bands, the network takes 4"):
        outcome.predict(data / "dark" / "colour.png")


def test_a_step_that_needs_colours_is_refused_before_the_data_is_read(
    make_run: MakeRun, tmp_path: Path
) -> None:
    data = write_four(tmp_path / "photos")
    augment = {"kind": "albumentations", "transforms": ["HorizontalFlip", "ToSepia"]}
    with pytest.raises(RecipeError) as caught:
        make_run(data, 4, augment=augment)
    assert [(found.path, found.message) for found in caught.value.problems] == [
        (
            "augment.transforms.1",
            "ToSepia cannot take 4-channel images: "
            "ToSepia transformation expects 1 or 3-channel images.",
        )
    ]
