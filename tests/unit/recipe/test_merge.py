"""Flags and keywords end in the same places as YAML."""

from pathlib import Path

import pytest

from finetune.errors import RecipeError
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments
from finetune.recipe.schema import Recipe


def test_arguments_equal_the_same_values_in_a_recipe():
    given = with_arguments(
        load_recipe("default"),
        backbone="resnet18",
        weights=Path("w.safetensors"),
        pretrained=True,
        data=Path("photos"),
        device="cpu",
        seed=3,
    )
    assert given == load_recipe(
        "default",
        overrides=[
            "model.backbone=resnet18",
            "model.weights=w.safetensors",
            "data.path=photos",
            "runtime.device=cpu",
            "seed=3",
        ],
    )


def test_an_argument_that_is_not_given_leaves_the_value():
    recipe = Recipe(
        seed=5,
        model={"backbone": "vit_tiny_patch16_224", "head": "mlp"},
        stages=[{"name": "a", "train": "all"}],
    )
    assert with_arguments(recipe, backbone=None, seed=None) == recipe


def test_a_wrong_argument_is_told_by_its_place():
    with pytest.raises(RecipeError) as caught:
        with_arguments(Recipe(), device="gpu")
    assert caught.value.problems[0].path == "runtime.device"
