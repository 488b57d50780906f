"""Photos become small pictures by the one decoder, or say why they do not."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from synthetic import write_photos

from finetune.report.photos import SIDE_PX, photo_root, read_photos


def picture(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def test_a_photo_is_small_and_keeps_its_sides(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400), "red").save(tmp_path / "wide.jpg")
    photo = read_photos(tmp_path, ["wide.jpg"])["wide.jpg"]
    assert (photo.width, photo.height) == (SIDE_PX, SIDE_PX // 2)
    assert picture(photo.uri or "").size == (photo.width, photo.height)


def test_a_turned_photo_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (400, 200)).save(tmp_path / "turned.jpg", exif=exif)
    photo = read_photos(tmp_path, ["turned.jpg"])["turned.jpg"]
    assert (photo.width, photo.height) == (SIDE_PX // 2, SIDE_PX)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_image_can_be_shown(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (40, 40)).save(tmp_path / "one.tif")
    assert read_photos(tmp_path, ["one.tif"])["one.tif"].uri


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", "no such file"),
        ("text.jpg", "not an image"),
        ("../outside.jpg", "its name leads out of the data folder"),
        ("/outside.jpg", "its name leads out of the data folder"),
        ("a\0b.jpg", "its name leads out of the data folder"),
    ],
)
def test_what_cannot_be_shown_says_why(tmp_path: Path, name: str, reason: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "text.jpg").write_text("no image at all")
    write_photos(tmp_path, ["outside.jpg"])
    photo = read_photos(data, [name])[name]
    assert photo.uri is None
    assert reason in photo.reason


def test_without_a_folder_every_photo_says_so() -> None:
    assert read_photos(None, ["a.jpg"])["a.jpg"].reason == "it is not known where the photos are"


def test_names_of_a_csv_are_relative_to_its_folder(tmp_path: Path) -> None:
    assert photo_root(tmp_path / "photos.csv") == tmp_path
    assert photo_root(tmp_path) == tmp_path
