"""What a recipe may say, and the sentence for what it may not: from Python, without lines."""

import copy
import pickle

import numpy as np
import pytest

from finetune import Recipe as PublicRecipe
from finetune.components.policies import LastPolicy
from finetune.errors import FinetuneError, RecipeError
from finetune.recipe.schema import SELECTION_METRICS, ModelSection, Recipe, TrainingSection
from finetune.recipe.stages import Stage

HEAD = {"name": "head", "train": "head", "solver": "probe"}
FULL = {"name": "full", "train": "all"}


def messages(**values):
    with pytest.raises(RecipeError) as caught:
        Recipe(**values)
    return str(caught.value).splitlines()


def stage_message(**values):
    with pytest.raises(RecipeError) as caught:
        Stage(**{**FULL, **values})
    return str(caught.value)


def test_the_public_name_is_this_recipe():
    assert PublicRecipe is Recipe


def test_a_recipe_without_values_is_a_probe():
    assert [stage.solver for stage in Recipe().stages] == ["probe"]


def test_sections_and_mappings_build_equal_recipes():
    stage = Stage(name="last", train=LastPolicy(last=2), epochs=3)
    training = TrainingSection(batch_size=8)
    assert Recipe(stages=(stage,), training=training) == Recipe(
        stages=[{"name": "last", "train": {"last": 2}, "epochs": 3}], training={"batch_size": 8}
    )


def test_a_recipe_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3


def test_a_recipe_survives_copying_and_pickling():
    recipe = Recipe(stages=[HEAD, FULL], augment="strong")
    assert copy.deepcopy(recipe) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_numbers_of_numpy_are_numbers():
    recipe = Recipe(seed=np.int64(7), training={"clip_norm": np.float32(0.5)})
    assert (type(recipe.seed), recipe.seed, recipe.training.clip_norm) == (int, 7, 0.5)


def test_the_error_is_one_of_ours_and_a_value_error():
    with pytest.raises(RecipeError) as caught:
        Recipe(seed=-1)
    assert isinstance(caught.value, FinetuneError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].path == "seed"
    assert caught.value.problems[0].line is None


def test_a_section_made_alone_tells_its_own_paths():
    with pytest.raises(RecipeError) as caught:
        ModelSection(backbne="resnet18")
    assert str(caught.value) == "backbne: unknown value 'backbne' (did you mean backbone?)"


def test_all_problems_are_told_at_once():
    assert messages(
        seed=-1,
        sed=3,
        stages=[{"name": "a b", "train": "haed", "epoch": 3, "lr": "fast"}],
        training={"batch_size": 0},
    ) == [
        "seed: must be at least 0, got -1",
        "stages.0.name: 1 to 40 letters, digits, - and _ make a name, got 'a b'",
        "stages.0.train: unknown value 'haed'; allowed: all, bias, head, norm, {blocks: …}, "
        "{last_blocks: …}, {last: …}, {lora: …}, {match: …} (did you mean head?)",
        "stages.0.lr: expected a number, got 'fast'",
        "stages.0.epoch: unknown value 'epoch' (did you mean epochs?)",
        "training.batch_size: must be at least 1, got 0",
        "sed: unknown value 'sed' (did you mean seed?)",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": True}, "seed: expected a whole number, got true"),
        ({"seed": "3"}, "seed: expected a whole number, got '3'"),
        ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
        ({"seed": None}, "seed: is empty (give it a value, or leave it out)"),
        ({"seed": 2**32}, "seed: must be less than 4294967296, got 4294967296"),
        ({"name": 7}, 'name: expected text, got 7 (write "7", in quotes)'),
        ({"name": "a/b"}, "name: 1 to 60 letters, digits, -, _ and . make a name, got 'a/b'"),
        ({"model": "resnet18"}, "model: expected a mapping, got 'resnet18'"),
        ({"model": {"backbone": ""}}, "model.backbone: must not be empty"),
        ({"model": {"pretrained": 3}}, "model.pretrained: expected true or false, got 3"),
        (
            {"model": {"weights": "w.safetensors", "pretrained": False}},
            "model.weights: a weights file is named, but pretrained is false; drop one",
        ),
        ({"data": {"val_fraction": 0}}, "data.val_fraction: must be greater than 0, got 0"),
        (
            {"data": {"resize": "cropp"}},
            "data.resize: unknown value 'cropp'; allowed: crop, pad, squash, auto "
            "(did you mean crop?)",
        ),
        (
            {"data": {"decode": "half"}},
            "data.decode: unknown value 'half'; allowed: full, reduced",
        ),
        ({"data": {"resize": 3}}, "data.resize: unknown value 3; allowed: crop, pad, squash, auto"),
        ({"stages": []}, "stages: must not be empty"),
        ({"stages": HEAD}, "stages: expected a list, got a mapping"),
        ({"stages": ["head"]}, "stages.0: expected a mapping, got 'head'"),
        ({"stages": [{"name": "x"}]}, "stages.0.train: is missing; it has no default"),
        (
            {"stages": [FULL, HEAD, FULL]},
            "stages.2.name: two stages are called 'full'; names must differ",
        ),
        (
            {"training": {"clip_norm": float("inf")}},
            "training.clip_norm: must be a finite number, got inf",
        ),
        ({"training": {"ema": 1}}, "training.ema: must be less than 1, got 1"),
        (
            {"training": {"mixup": 0.2, "manifold_mixup": 0.2}},
            "training.manifold_mixup: mixup and CutMix mix images; drop them or this",
        ),
        (
            {"runtime": {"device": "gpu"}},
            "runtime.device: unknown value 'gpu'; allowed: auto, cpu, cuda, cuda:1, mps "
            "(did you mean cpu?)",
        ),
        (
            {"runtime": {"workers": "many"}},
            "runtime.workers: expected a whole number or auto, got 'many'",
        ),
        (
            {"evaluate": {"select_by": "test_accuracy"}},
            "evaluate.select_by: 'test_accuracy': the test part is never used for a choice; "
            "take a val_ figure",
        ),
        (
            {"evaluate": {"select_by": "val_f1"}},
            "evaluate.select_by: there is no metric 'val_f1'; allowed: "
            f"{', '.join(SELECTION_METRICS)} (did you mean val_macro_f1?)",
        ),
        (
            {"evaluate": {"select_by": 3}},
            'evaluate.select_by: expected text, got 3 (write "3", in quotes)',
        ),
        (
            {"model": {"head": "mlp"}, "stages": [HEAD]},
            "model.head: a stage with solver: probe fits a linear head, but the head is mlp "
            "(write head: linear, or train the head by gradient)",
        ),
        ({"schema_version": 0}, "schema_version: unknown value 0; allowed: 1"),
        (
            {"schema_version": 2},
            "schema_version: this version of finetune reads version 1, not 2 "
            "(pip install --upgrade finetune-vision)",
        ),
    ],
)
def test_one_mistake_is_one_sentence(values, expected):
    assert messages(**values) == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr": -1}, "lr: must be greater than 0, got -1"),
        ({"lr": 11.0}, "lr: must be at most 10, got 11.0"),
        ({"lr": float("nan")}, "lr: must be a finite number, got nan"),
        ({"epochs": 0}, "epochs: must be at least 1, got 0"),
        (
            {"epochs": "atuo"},
            "epochs: expected a whole number or auto, got 'atuo' (did you mean auto?)",
        ),
        ({"epochs": 2.5}, "epochs: expected a whole number or auto, got 2.5"),
        ({"warmup_fraction": 1}, "warmup_fraction: must be less than 1, got 1"),
        ({"early_stopping": {}}, "early_stopping.patience: is missing; it has no default"),
        (
            {"early_stopping": {"patience": 5}, "epochs": 5},
            "early_stopping.patience: early stopping with patience 5 cannot fire within epochs: 5",
        ),
        (
            {"solver": "probe"},
            "train: solver: probe fits the head (write head)",
        ),
    ],
)
def test_one_mistake_in_a_stage_is_one_sentence(values, expected):
    assert stage_message(**values) == expected


def test_early_stopping_that_can_fire_is_accepted():
    assert Stage(**FULL, epochs=6, early_stopping={"patience": 5}).early_stopping.patience == 5


def test_a_probe_has_only_name_train_and_solver():
    assert messages(stages=[{**HEAD, "lr": 0.1, "epochs": 3}]) == [
        "stages.0.epochs: a stage with solver: probe has no epochs (leave it out)",
        "stages.0.lr: a stage with solver: probe has no lr (leave it out)",
    ]
    assert Stage(**HEAD).model_dump() == HEAD


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"batch_size": 3},
            "batch_size: unknown value 'batch_size' (did you mean training.batch_size?)",
        ),
        ({"lr": 0.1}, "lr: unknown value 'lr' (did you mean stages.0.lr?)"),
        ({"backbone": "x"}, "backbone: unknown value 'backbone' (did you mean model.backbone?)"),
        (
            {"stages": [{**FULL, "batch_size": 3}]},
            "stages.0.batch_size: unknown value 'batch_size' (did you mean training.batch_size?)",
        ),
        (
            {"evaluate": {"zzz": 1}},
            "evaluate.zzz: unknown value 'zzz' (allowed: select_by, temperature, "
            "reject_at_precision, conformal_coverage, novelty)",
        ),
    ],
)
def test_a_value_in_the_wrong_section_is_told_its_place(values, expected):
    assert messages(**values) == [expected]


def test_a_mapping_with_keys_that_are_no_words_is_refused():
    with pytest.raises(RecipeError, match="keys should be strings"):
        Recipe.read({1: 2})


def test_a_long_value_is_shortened():
    [line] = messages(model={"pretrained": "x" * 500})
    assert len(line) < 120
    assert line.endswith("…")
