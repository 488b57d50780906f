"""Near-duplicates: copies that were changed are found, other pictures of one kind are not."""

import io

import numpy as np
import pytest
from PIL import Image

from finetune.data.groups import joined
from finetune.data.near import find_near_duplicates
from finetune.data.thumbnail import make_thumbnail

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def find(*images, workers=1):
    return find_near_duplicates(np.stack([make_thumbnail(one) for one in images]), workers=workers)


def places(pairs):
    return [(pair.one, pair.other) for pair in pairs]


def recompressed(image, quality):
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file).convert("RGB")


CHANGES = {
    "another size": lambda image: image.resize((40, 30)),
    "another shape": lambda image: image.resize((90, 90)),
    "another quality": lambda image: recompressed(image, 30),
    "mirrored": lambda image: image.transpose(MIRROR),
    "cropped at two sides": lambda image: image.crop((10, 0, 120, 84)),
    "cropped at four sides": lambda image: image.crop((5, 4, 116, 87)),
    "mirrored, cropped, smaller": lambda image: (
        image.transpose(MIRROR).crop((6, 3, 118, 88)).resize((64, 48))
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_among_other_pictures(draw_scene, change):
    scenes = [draw_scene(number) for number in range(4)]
    assert places(find(*scenes, change(scenes[2]))) == [(2, 4)]


def test_a_pair_says_how_alike_and_whether_mirrored(draw_scene):
    scene = draw_scene(1)
    (pair,) = find(scene, scene.resize((60, 45)))
    assert not pair.is_mirrored
    assert 0.95 < pair.likeness <= 1
    (pair,) = find(scene, scene.transpose(MIRROR))
    assert pair.is_mirrored


def test_another_crop_of_the_same_picture_is_found(draw_scene):
    scene = draw_scene(1)
    assert places(find(scene.crop((8, 0, 120, 90)), scene.crop((0, 6, 120, 90)))) == [(0, 1)]


def test_half_of_a_picture_is_another_picture(draw_scene):
    scene = draw_scene(1)
    assert find(scene, scene.crop((0, 0, 60, 90))) == ()


def test_the_same_layout_in_another_colour_is_another_picture():
    squares = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((16, 16)))[..., None]
    red, green = (
        Image.fromarray((255 - squares * np.array(colour)).astype(np.uint8))
        for colour in ((20, 200, 200), (200, 20, 200))
    )
    assert find(red, green) == ()


def test_plain_pictures_are_never_duplicates():
    slope = Image.fromarray(np.tile(np.arange(100, 132, dtype=np.uint8), (32, 1)))
    grey = Image.new("L", (64, 64), 90)
    assert find(grey, grey, slope, slope) == ()


def test_handwritten_digits_are_not_taken_for_each_other():
    from sklearn.datasets import load_digits

    digits = [
        Image.fromarray((image * 15).astype(np.uint8)) for image in load_digits().images[:300]
    ]
    assert find(*digits) == ()


def test_the_answer_does_not_depend_on_order_or_threads(draw_scene):
    scenes = [draw_scene(number) for number in range(5)]
    images = [*scenes, *(scene.resize((60, 45)) for scene in scenes)]
    assert places(find(*images)) == [(k, k + 5) for k in range(5)]
    assert places(find(*images, workers=3)) == [(k, k + 5) for k in range(5)]
    assert places(find(*images[::-1])) == [(k, k + 5) for k in range(5)]


def test_pictures_of_one_layout_and_another_picture_are_no_pair(draw_scene):
    scene = np.asarray(draw_scene(1)).astype(int)
    inverse = (scene - 128) * np.array([1, 1, -1])
    other = Image.fromarray(np.clip(inverse + 128, 0, 255).astype(np.uint8))
    assert find(draw_scene(1), other) == ()


def test_few_pictures_are_no_pairs(draw_scene):
    assert find(draw_scene(1)) == ()
    assert find_near_duplicates(np.empty((0, 32, 32, 3), dtype=np.uint8)) == ()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (3, 900), (700, 40)])
def test_a_thumbnail_has_one_shape_whatever_the_image(mode, size):
    thumbnail = make_thumbnail(Image.new(mode, size, 50))
    assert (thumbnail.shape, thumbnail.dtype) == ((32, 32, 3), np.uint8)
    assert (thumbnail[..., 0] == 50).all()


def test_very_many_that_look_alike_are_joined_without_comparing_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 255, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    frames = np.clip(scene + generator.normal(0, 4, (80, 32, 32, 3)), 0, 255).astype(np.uint8)
    every = find_near_duplicates(frames)
    assert len(every) > 80 * 30  # each with each would be 3,160
    monkeypatch.setattr("finetune.data.near._MOST", 6)
    some = find_near_duplicates(frames)
    assert len(some) <= 80 * 6
    (group,) = joined((pair.one, pair.other) for pair in some)
    assert len(group) == 80
