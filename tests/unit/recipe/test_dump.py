"""What is written loads as an equal recipe; a resolved one tells its reasons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.builtin import list_recipes
from finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from finetune.recipe.schema import Recipe
from finetune.types import ParamRule

NAMES = [listing.name for listing in list_recipes()]
FORMS = [
    "head",
    "all",
    "norm",
    "bias",
    {"last": 2},
    {"last_blocks": 4},
    {"blocks": ["stem", 3]},
    {"match": "a: #b"},
    {"lora": {}},
    {"lora": {"rank": 4, "alpha": 6.5, "dropout": 0.1, "targets": "attn: #x"}},
]


class Everything:
    """A policy as a Python user writes one."""

    def rules(self, params):
        return [ParamRule(one.name, trainable=True) for one in params]


def again(recipe):
    return parse_recipe(dump_recipe(recipe), source="again")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_as_it_was_written(name):
    recipe = load_recipe(name)
    assert again(recipe) == recipe


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_train_loads_as_it_was_written(form):
    recipe = Recipe(stages=[{"name": "one", "train": form}])
    assert again(recipe) == recipe


def test_only_what_departs_from_the_defaults_is_written():
    recipe = Recipe(
        seed=0,
        model={"head": {"kind": "mlp", "hidden": 512}, "pretrained": True},
        stages=[{"name": "one", "train": {"last": 2}, "lr": 1e-4, "optimizer": {"momentum": 0.5}}],
    )
    assert dump_recipe(recipe) == (
        "schema_version: 1\n"
        "name: custom\n"
        "model:\n"
        "  head: {kind: mlp, hidden: 512, dropout: 0.2}\n"
        "stages:\n"
        "  - name: one\n"
        "    train: {last: 2}\n"
        "    optimizer: {momentum: 0.5}\n"
    )


def test_every_value_of_a_resolved_recipe_is_written_with_its_reason(resolved):
    text = dump_recipe(resolved())
    written = text.splitlines()
    assert written[0] == "# What this run did; `finetune run --recipe` repeats it."
    assert "    epochs: 21 # 21 epochs of 19 steps make 399 steps, near 400" in written
    assert "  device: cpu # auto: it is there" in written
    assert "  batch_size: 32" in written
    assert "  weights: null" in written
    assert text.count(" # ") == len(resolved().reasons) == 9


def test_a_probe_is_written_with_name_train_and_solver_alone(resolved):
    written = dump_recipe(resolved("probe")).splitlines()
    start = written.index("stages:")
    assert written[start : start + 5] == [
        "stages:",
        "  - name: head",
        "    train: head",
        "    solver: probe",
        "training:",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_repeats_what_was_resolved(resolved, name):
    first = resolved(name)
    assert again(first) == first.to_recipe()
    assert resolved(again(first)).model_dump() == first.model_dump()


def test_a_long_reason_of_several_lines_stays_on_the_line_of_its_value(resolved):
    recipe = resolved().model_copy(update={"reasons": {"seed": "one\ntwo " + "x" * 300}})
    assert f"seed: 0 # one two {'x' * 300}\n" in dump_recipe(recipe)


def test_transforms_are_written_one_a_line():
    augment = {
        "kind": "albumentations",
        "transforms": ["VerticalFlip", {"name": "Rotate", "limit": [0, 5]}],
    }
    recipe = Recipe(augment=augment)
    assert again(recipe) == recipe
    assert "    - {name: Rotate, limit: [0, 5]}\n" in dump_recipe(recipe)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_path_survives(path):
    recipe = Recipe(data={"path": path})
    assert again(recipe).data.path == path


@pytest.mark.parametrize(
    "path",
    [
        "no",
        "null",
        "1e3",
        "true",
        "~",
        " a ",
        "a: b",
        "a #b",
        "2026-01-31",
        "[a",
        "'",
        '"',
        "\n",
        "photos/né",
        "C:\\data",
    ],
)
def test_a_path_that_looks_like_yaml_survives(path):
    assert again(Recipe(data={"path": path})).data.path == path


@given(st.floats(1e-12, 10, allow_nan=False))
def test_any_rate_survives_to_the_last_digit(lr):
    recipe = Recipe(stages=[{"name": "one", "train": "all", "lr": lr}])
    assert again(recipe).stages[0].lr == lr


def test_an_object_of_python_is_written_by_name_and_cannot_be_read():
    recipe = Recipe(stages=[{"name": "one", "train": Everything()}])
    text = dump_recipe(recipe)
    assert "train: {kind: python, given: " in text
    assert "test_dump.Everything}" in text
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, source="mine.yaml")
    assert str(caught.value) == (
        "mine.yaml:5: stages.0.train.given: a freeze policy made in Python cannot be named in a "
        "file; pass it as train="
    )


def test_an_augmentation_of_python_is_written_by_name():
    text = dump_recipe(Recipe(augment=lambda image: image))
    assert "  kind: python\n" in text


def test_objects_of_python_survive_flags_and_resolution(resolved):
    policy = Everything()
    recipe = Recipe(stages=[{"name": "one", "train": policy}])
    changed = resolved(recipe, "training.batch_size=8")
    assert changed.stages[0].train.given is policy
    assert changed.to_recipe().stages[0].train.given is policy
