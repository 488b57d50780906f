"""Augmentation: presets, albumentations by name, and what a Python user passes."""

import pickle
import random
import sys

import albumentations
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from finetune.components import augment as module
from finetune.components import steps
from finetune.components.augment import (
    AlbumentationsAugment,
    Augment,
    LightAugment,
    NoAugment,
    PythonAugment,
    StandardAugment,
    StrongAugment,
)
from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.errors import DataError, RecipeError

SPEC = InputSpec(32, 48, "bicubic")
PRESETS = [LightAugment(), NoAugment(), StandardAugment(), StrongAugment()]
PRESET_IDS = [preset.kind for preset in PRESETS]
READ = TypeAdapter(Augment).validate_python


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def named(*transforms: object) -> AlbumentationsAugment:
    return AlbumentationsAugment.model_validate({"transforms": transforms})


def problems_of(*transforms: object) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        named(*transforms).check()
    return str(caught.value).splitlines()


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize("size", [(60, 90), (32, 48), (1, 1), (3, 700), (700, 3), (20, 10)])
def test_a_preset_gives_the_input_size_of_every_image(preset, crop_mode, size):
    spec = InputSpec(32, 48, "bicubic", crop_mode=crop_mode, fill=(1, 2, 3))
    result = preset.build(spec)(photo(*size), seed=5)
    assert result.shape == (32, 48, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
def test_the_same_seed_gives_the_same_pixels_whatever_came_before(preset):
    function, other = preset.build(SPEC), preset.build(SPEC)
    first = function(photo(), seed=3)
    function(photo(10, 10), seed=4)
    assert np.array_equal(function(photo(), seed=3), first)
    assert np.array_equal(other(photo(), seed=3), first)


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
def test_a_pipeline_gives_the_same_pixels_after_a_journey_to_another_process(preset):
    function = preset.build(SPEC)
    copy = pickle.loads(pickle.dumps(function))
    assert np.array_equal(copy(photo(), seed=9), function(photo(), seed=9))


@pytest.mark.parametrize("preset", [LightAugment(), StandardAugment(), StrongAugment()])
def test_seeds_change_what_random_presets_give(preset):
    function = preset.build(SPEC)
    assert not np.array_equal(function(photo(), seed=1), function(photo(), seed=2))


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
def test_no_random_state_of_the_process_is_touched(preset):
    function = preset.build(SPEC)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    function(photo(), seed=1)
    after = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_image_that_was_given_is_not_changed():
    image = photo()
    StrongAugment().build(SPEC)(image, seed=0)
    assert np.array_equal(image, photo())


def test_none_is_what_evaluation_sees():
    preprocessing = Preprocessing(input_size=(3, 32, 48), crop_mode="border", crop_pct=0.9)
    from PIL import Image

    expected = preprocessing.transform()(Image.fromarray(photo())).permute(1, 2, 0).numpy()
    assert np.array_equal(NoAugment().build(preprocessing.spec)(photo(), seed=0), expected)


def test_flips_along_two_axes_do_not_fall_together():
    function = named(
        {"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}
    ).build(InputSpec(2, 2, "bicubic"))
    corners = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen = {function(corners, seed=seed)[0, 0, 0] for seed in range(40)}
    assert seen == {0, 3, 6, 9}


def test_a_preset_shrinks_with_antialiasing():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = LightAugment(min_scale=1.0).build(InputSpec(64, 64, "bicubic"))(stripes, seed=0)
    assert abs(int(crop.min()) - 128) < 10
    assert abs(int(crop.max()) - 128) < 10


def test_padding_comes_before_the_crop_where_evaluation_pads():
    spec = InputSpec(32, 32, "bicubic", crop_mode="border", fill=(9, 8, 7))
    crop = LightAugment(min_scale=1.0).build(spec)(np.full((20, 200, 3), 255, np.uint8), seed=0)
    assert crop[0, 0].tolist() == [9, 8, 7]
    assert crop[16, 16].tolist() == [255, 255, 255]


def test_a_long_panorama_is_shrunk_before_it_is_padded():
    spec = InputSpec(16, 16, "bicubic", crop_mode="border", fill=(9, 8, 7))
    crop = LightAugment(min_scale=1.0).build(spec)(np.full((9, 60_000, 3), 255, np.uint8), seed=0)
    assert crop.shape == (16, 16, 3)


def test_every_part_of_a_preset_can_be_switched_on():
    everything = LightAugment(vertical_flip=1, colour=0.5, rotate_degrees=30, blur=1, erase=1)
    assert everything.build(SPEC)(photo(), seed=0).shape == (32, 48, 3)


def test_a_name_is_the_short_form_of_a_preset():
    assert READ("standard") == StandardAugment()


def test_a_name_is_the_short_form_of_a_transform():
    assert named("HorizontalFlip") == named({"name": "HorizontalFlip"})


def test_tuples_from_python_equal_lists_from_a_file():
    assert named({"name": "Rotate", "limit": (-5, 5)}) == named(
        {"name": "Rotate", "limit": [-5, 5]}
    )


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (3, "a transform is its name, or a mapping with `name` and its arguments"),
        ({"p": 1}, "a transform is its name, or a mapping with `name` and its arguments"),
        ({"name": "OneOf", "transforms": "Blur"}, "`transforms` of a composition is a list"),
        ({"name": "Blur", "p": len}, "arguments are plain data, not builtin_function_or_method"),
    ],
)
def test_a_step_of_the_wrong_form_is_refused(step, message):
    with pytest.raises(ValidationError, match=message):
        named(step)


def test_nested_arguments_may_be_mappings():
    step = {"name": "AdditiveNoise", "noise_params": {"ranges": [[-0.1, 0.1]]}, "p": 1.0}
    assert named(step).build(SPEC)(photo(), seed=0).shape == (32, 48, 3)


def test_an_unknown_transform_is_named_with_the_nearest():
    assert problems_of("HorizntalFlip") == [
        "augment.transforms.0: albumentations has no transform 'HorizntalFlip' "
        "(did you mean HorizontalFlip?)"
    ]


def test_an_unknown_argument_is_named_with_the_nearest():
    assert problems_of("Blur", {"name": "VerticalFlip", "probability": 1, "pp": 1}) == [
        "augment.transforms.1.probability: VerticalFlip has no argument 'probability'; it takes p",
        "augment.transforms.1.pp: VerticalFlip has no argument 'pp'; it takes p (did you mean p?)",
    ]


def test_a_value_out_of_range_is_named():
    assert problems_of({"name": "Rotate", "p": 2}) == [
        "augment.transforms.0.p: Rotate: Input should be less than or equal to 1, not 2"
    ]


def test_a_missing_argument_is_named():
    assert problems_of({"name": "RandomCrop", "width": 5}) == [
        "augment.transforms.0.height: RandomCrop: Field required"
    ]


def test_a_composition_without_transforms_is_refused():
    assert problems_of("OneOf") == [
        "augment.transforms.0: OneOf: OneOf.__init__() missing 1 required positional argument: "
        "'transforms'"
    ]


def test_what_albumentations_only_warns_of_is_an_error():
    assert problems_of({"name": "SomeOf", "n": 5, "transforms": ["Blur"]}) == [
        "augment.transforms.0: SomeOf: `n` is greater than number of transforms. "
        "`n` will be set to 1."
    ]


def test_problems_of_nested_transforms_have_their_path():
    assert problems_of({"name": "OneOf", "transforms": ["Blur", "Blr"]}) == [
        "augment.transforms.0.transforms.1: albumentations has no transform 'Blr' "
        "(did you mean Blur?)"
    ]


@pytest.mark.parametrize("name", ["Normalize", "ToFloat", "ToTensorV2"])
def test_a_step_that_normalises_is_refused_with_the_reason(name):
    assert problems_of(name) == [
        f"augment.transforms.0: {name} cannot stand in an augmentation: "
        "normalisation comes from the weights, on the device"
    ]


def test_code_cannot_be_named():
    assert problems_of("Lambda") == [
        "augment.transforms.0: Lambda cannot stand in an augmentation: "
        "a recipe names no code; pass a function from Python as augment="
    ]


@pytest.mark.parametrize("name", ["BasicTransform", "ImageOnlyTransform", "CenterCrop3D", "cv2"])
def test_what_is_no_transform_of_images_cannot_be_named(name):
    assert f"albumentations has no transform {name!r}" in problems_of(name)[0]


def test_all_problems_are_reported_at_once():
    assert len(problems_of("A", "Blur", "Mosaic", {"name": "Blur", "q": 1})) == 3


def test_every_transform_that_may_be_named_gives_an_image_with_its_defaults():
    names = sorted(steps._allowed(albumentations))
    made = {name: _try_defaults(name) for name in names}
    needing = {name for name, result in made.items() if result is None}
    assert len(names) == 98
    assert needing == {
        *("CenterCrop", "CropAndPad", "GridElasticDeform", "LongestMaxSize", "OneOf", "OneOrOther"),
        *("RandomCrop", "RandomOrder", "RandomResizedCrop", "RandomSizedCrop", "Resize"),
        *("SelectiveChannelTransform", "Sequential", "SmallestMaxSize", "SomeOf"),
    }


def _try_defaults(name: str) -> np.ndarray | None:
    """Give an image changed by a transform with its defaults; None where it needs arguments."""
    section = named({"name": name} if name in ("OneOf",) else {"name": name, "p": 1.0})
    try:
        section.check()
    except RecipeError:
        return None
    result = section.build(SPEC)(photo(1100, 1100) if name == "Crop" else photo(), seed=0)
    assert result.shape == (32, 48, 3)
    return result


def test_the_geometry_of_evaluation_follows_a_pipeline_of_another_size():
    expected = NoAugment().build(SPEC)(photo()[:, ::-1].copy(), seed=0)
    flipped = named({"name": "HorizontalFlip", "p": 1.0}).build(SPEC)(photo(), seed=0)
    assert np.array_equal(flipped, expected)


def test_a_pipeline_that_reaches_the_size_is_left_alone():
    image = photo(32, 48)
    assert np.array_equal(named("NoOp").build(SPEC)(image, seed=0), image)


def test_a_step_that_cannot_take_the_image_says_so():
    function = named({"name": "RandomCrop", "height": 500, "width": 500}).build(SPEC)
    with pytest.raises(DataError, match="the augmentation fails on an image of 90 x 60 pixels: Cr"):
        function(photo(), seed=0)


def test_a_pipeline_that_gives_one_channel_says_what_it_must_give():
    function = named({"name": "ToGray", "num_output_channels": 1, "p": 1.0}).build(SPEC)
    with pytest.raises(DataError, match=r"gave uint8 \(60, 90\); it must give uint8 of shape"):
        function(photo(), seed=0)


def test_named_pipelines_travel_to_another_process():
    function = named({"name": "GaussNoise", "p": 1.0}).build(SPEC)
    copy = pickle.loads(pickle.dumps(function))
    assert np.array_equal(copy(photo(), seed=9), function(photo(), seed=9))


def test_importing_albumentations_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    LightAugment().build(SPEC)
    assert "NO_ALBUMENTATIONS_UPDATE" not in module.os.environ
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "0")
    LightAugment().build(SPEC)
    assert module.os.environ["NO_ALBUMENTATIONS_UPDATE"] == "0"


def test_a_pipeline_from_python_is_seeded_and_not_touched():
    mine = albumentations.Compose([albumentations.GaussNoise(p=1.0)], seed=1)
    state = mine.random_generator.bit_generator.state
    function = READ(mine).build(SPEC)
    assert np.array_equal(function(photo(), seed=2), function(photo(), seed=2))
    assert mine.random_generator.bit_generator.state == state


def test_a_pipeline_from_python_that_normalises_is_refused():
    mine = albumentations.Compose(
        [albumentations.OneOf([albumentations.Normalize(), albumentations.Blur()])]
    )
    with pytest.raises(RecipeError) as caught:
        READ(mine).check()
    assert str(caught.value) == (
        "augment: Normalize cannot stand in an augmentation: "
        "normalisation comes from the weights, on the device"
    )


def test_a_function_from_python_is_called_with_the_seed_where_it_takes_one():
    def shifted(image: np.ndarray, seed: int) -> np.ndarray:
        return image + np.uint8(seed)

    assert np.array_equal(READ(shifted).build(SPEC)(photo(32, 48), seed=3), photo(32, 48) + 3)


def test_a_function_from_python_without_a_seed_is_called_with_the_image():
    def mirrored(image: np.ndarray) -> np.ndarray:
        return image[:, ::-1]

    result = READ(mirrored).build(SPEC)(photo(32, 48), seed=3)
    assert np.array_equal(result, photo(32, 48)[:, ::-1])


def test_a_function_that_does_not_tell_its_parameters_is_called_with_the_image():
    class Untold:
        __signature__ = "none"

        def __call__(self, image: np.ndarray) -> np.ndarray:
            return image

    assert np.array_equal(READ(Untold()).build(SPEC)(photo(32, 48), seed=3), photo(32, 48))


def test_an_object_with_the_verb_builds_itself():
    class Mine:
        def build(self, spec: InputSpec) -> object:
            return lambda image, *, seed: (spec.width, seed)

    assert READ(Mine()).build(SPEC)(photo(), seed=4) == (48, 4)


def test_a_function_that_gives_floats_is_told_what_to_give():
    function = READ(lambda image: image / 255).build(SPEC)
    with pytest.raises(DataError, match=r"the augmentation gave float64 \(60, 90, 3\); it must"):
        function(photo(), seed=0)


def test_a_function_that_gives_nothing_is_told_what_to_give():
    with pytest.raises(DataError, match="the augmentation gave NoneType; it must give uint8"):
        READ(lambda image: None).build(SPEC)(photo(), seed=0)


def test_python_code_cannot_be_named_in_a_file():
    dumped = PythonAugment(function=photo).model_dump(mode="json")
    assert dumped == {"kind": "python", "function": f"{__name__}.photo"}
    with pytest.raises(ValidationError, match="an augmentation in Python cannot be named in a fi"):
        READ(dumped)


def test_an_object_is_dumped_by_its_class():
    mine = PythonAugment(function=albumentations.Compose([albumentations.Blur()]))
    assert mine.model_dump(mode="json")["function"] == "albumentations.core.composition.Compose"


def test_a_value_that_is_no_augmentation_is_refused():
    with pytest.raises(ValidationError, match="expected albumentations, light, none, standard"):
        READ(3)


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
def test_presets_have_nothing_to_find_wrong(preset):
    assert preset.check() is None


def test_sections_load_without_albumentations(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    assert READ({"kind": "albumentations", "transforms": ["Blur"]}).kind == "albumentations"


@pytest.mark.parametrize(("width", "height"), [(640, 32), (32, 640), (480, 32)])
def test_strong_takes_every_shape(width: int, height: int) -> None:
    augment = StrongAugment(erase=1.0).build(InputSpec(height, width, "bicubic"))
    image = np.zeros((90, 900, 3), np.uint8)
    assert all(augment(image, seed=seed).shape == (height, width, 3) for seed in range(30))


@pytest.mark.parametrize("crop_mode", ["border", "squash"])
def test_a_large_photo_is_brought_to_shape_at_the_size_that_crops_need(monkeypatch, crop_mode):
    sizes = []
    resize = Image.Image.resize

    def noted(self, size, *arguments, **keywords):
        sizes.append(tuple(size))
        return resize(self, size, *arguments, **keywords)

    monkeypatch.setattr(Image.Image, "resize", noted)
    spec = InputSpec(32, 48, "bicubic", crop_mode=crop_mode, fill=(1, 2, 3))
    result = StandardAugment().build(spec)(photo(900, 700), seed=5)
    assert result.shape == (32, 48, 3)
    assert max(max(size) for size in sizes) <= 2 * 4 * 48
