"""Maps of a page: for which photos, where they lie over a photo, and why there are none."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import Plan, make_bundle, write_run
from torch import nn

from finetune.components.preprocess import Preprocessing
from finetune.model.bundle import Bundle, save_bundle
from finetune.model.create import create_model
from finetune.recipe.load import load_recipe
from finetune.report import maps as maps_module
from finetune.report.gallery import NUM_LEAST_SURE, NUM_OF_PAIR, NUM_PAIRS, NUM_SUREST
from finetune.report.photos import SIDE_PX
from finetune.report.report import write_report

pytestmark = pytest.mark.slow  # each trains, once or more

CLASSES = ("red", "green", "blue")
SPOT_PX = 40


def details_of(page: Path) -> dict[str, dict[str, Any]]:
    """What the page says of its photos, by name."""
    found = re.search(r'id="details">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return {detail["name"]: detail for detail in json.loads(found[1]).values()}


def reason_of(page: Path) -> str:
    """Why the page says that there are no maps."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r"There are no maps of where the model looked: (.*?)\.</p>", text)
    return found[1] if found else ""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    plan = Plan(classes=CLASSES, num_photos=60, accuracy=0.6)
    return write_run(tmp_path / "run", plan, data=tmp_path / "photos")


def test_every_photo_that_is_studied_has_two_maps(run: Path) -> None:
    report = write_report(run, make_bundle(CLASSES))
    details = details_of(report.path)
    mapped = {name: detail for name, detail in details.items() if "maps" in detail}
    assert 20 < len(mapped) <= NUM_SUREST + NUM_LEAST_SURE + NUM_PAIRS * NUM_OF_PAIR
    assert len(mapped) < len(details)
    for detail in mapped.values():
        likeliest = [name for name, _, _ in detail["likeliest"]]
        is_right = detail["label"] == detail["predicted"]
        other = likeliest[1] if is_right else detail["label"]
        assert [name for name, _, _ in detail["maps"]] == [detail["predicted"], other]
    assert reason_of(report.path) == ""
    assert "8 by 8 places" in report.path.read_text(encoding="utf-8")


def test_the_maps_of_a_page_take_little_room(run: Path) -> None:
    with_maps = write_report(run, make_bundle(CLASSES)).path.stat().st_size
    num_mapped = sum("maps" in one for one in details_of(run / "report.html").values())
    without = write_report(run).path.stat().st_size
    assert (with_maps - without) / num_mapped < 1000  # bytes, of two maps


def write_spot(path: Path, size: tuple[int, int], centre: tuple[float, float], turn: int) -> None:
    """Write a grey photo with a red spot, stored turned as a camera does."""
    pixels = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
    column, row = round(centre[0] * size[0]), round(centre[1] * size[1])
    half = SPOT_PX // 2
    pixels[row - half : row + half, column - half : column + half] = (255, 0, 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if turn == 6:  # upright is a quarter to the right of what is stored
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, exif=exif, quality=95)


def brightest(detail: dict[str, Any]) -> tuple[float, float]:
    """The middle of what is bright in a map, as shares of the small picture's sides."""
    (uri,) = (uri for name, uri, _ in detail["maps"] if name == "red")
    cells = np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))))
    weights = np.where(cells > 0.2 * cells.max(), cells, 0).astype(float)
    rows, columns = ((places + 0.5) * weights for places in np.indices(cells.shape))
    left, top, width, height = detail["box"]
    across = left + width * columns.sum() / weights.sum() / cells.shape[1]
    down = top + height * rows.sum() / weights.sum() / cells.shape[0]
    return across / detail["width"], down / detail["height"]


@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "size", "turn"),
    [
        ("center", 1.0, (640, 400), 1),
        ("center", 0.8, (400, 640), 6),
        ("border", 1.0, (640, 400), 6),
        ("border", 1.0, (400, 640), 1),
        ("squash", 0.9, (640, 400), 6),
    ],
)
def test_a_map_lies_where_the_photo_is_what_the_class_is(
    tmp_path: Path, crop_mode: str, crop_pct: float, size: tuple[int, int], turn: int
) -> None:
    plan = Plan(classes=CLASSES, num_photos=6, accuracy=0.0)
    run = write_run(tmp_path / "run", plan, data=tmp_path / "photos")
    centre = (0.35, 0.63)
    for path in (tmp_path / "photos").rglob("*.jpg"):
        write_spot(path, size, centre, turn)
    values = {"input_size": (3, 128, 128), "crop_mode": crop_mode, "crop_pct": crop_pct}
    bundle = make_bundle(CLASSES, Preprocessing.model_validate(values))
    details = details_of(write_report(run, bundle).path)
    photos = [one for one in details.values() if "red" in [name for name, _, _ in one["maps"]]]
    assert len(photos) >= 3
    assert max(photos[0]["width"], photos[0]["height"]) == SIDE_PX
    for photo in photos:
        assert brightest(photo) == pytest.approx(centre, abs=0.025)  # under half a place
        (strongest,) = (words for name, _, words in photo["maps"] if name == "red")
        assert strongest in ("in the middle", "on the left", "in the lower middle")


def test_the_saved_model_of_the_folder_is_taken_where_none_is_given(run: Path) -> None:
    save(run, "test_efficientnet", CLASSES)
    details = details_of(write_report(run).path)
    assert sum("maps" in one for one in details.values()) > 20
    first = (run / "report.html").read_bytes()
    assert write_report(run).path.read_bytes() == first


def save(run: Path, backbone: str, classes: tuple[str, ...]) -> None:
    """Save a model of random weights beside a page."""
    recipe = load_recipe({"model": {"backbone": backbone, "pretrained": False}})
    made = create_model(recipe, num_classes=len(classes))
    save_bundle(Bundle(made.network, classes, made.preprocessing, {}), run / "model")


def damage(run: Path) -> None:
    save(run, "test_efficientnet", CLASSES)
    (run / "model/model.safetensors").write_bytes(b"no tensors")


REASONS: list[tuple[Callable[[Path], object], str]] = [
    (lambda run: None, "no saved model stands beside this page"),
    (damage, "model.safetensors cannot be read"),
    (
        lambda run: save(run, "test_efficientnet", ("ants", "bees", "wasps")),
        "the saved model has other classes than the answers of this page",
    ),
]


@pytest.mark.parametrize(("prepare", "reason"), REASONS)
def test_where_the_model_cannot_be_used_the_page_says_why(
    run: Path, prepare: Callable[[Path], object], reason: str
) -> None:
    prepare(run)
    page = write_report(run).path
    assert reason in reason_of(page)
    assert not any("maps" in one for one in details_of(page).values())


class Flat(nn.Module):
    """A network that has no places."""

    input_size = (3, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 64 * 64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits


def test_a_network_without_places_is_said_in_a_sentence(run: Path) -> None:
    bundle = Bundle(Flat(), CLASSES, Preprocessing(input_size=(3, 64, 64)), {})  # type: ignore[arg-type]
    page = write_report(run, bundle).path
    assert reason_of(page) == ("this network has no feature map whose places its answer depends on")


def test_a_network_that_fails_does_not_cost_the_page(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no room\nfor anything")

    monkeypatch.setattr(maps_module, "_make_maps", fail)
    page = write_report(run, make_bundle(CLASSES)).path
    assert reason_of(page) == "the network could not be followed: no room"


def test_a_recipe_may_want_none(run: Path) -> None:
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(text + "report: {maps: none}\n", encoding="utf-8")
    page = write_report(run, make_bundle(CLASSES)).path
    assert reason_of(page) == ""
    assert not any("maps" in one for one in details_of(page).values())


def test_a_photo_that_the_network_cannot_take_has_no_map(tmp_path: Path, run: Path) -> None:
    preprocessing = Preprocessing(input_size=(4, 64, 64))  # of four bands; the photos have three
    page = write_report(run, make_bundle(CLASSES, preprocessing)).path
    assert not any("maps" in one for one in details_of(page).values())
    assert "Surest mistakes" in page.read_text(encoding="utf-8")
