"""YAML to recipes: positions, everything that is refused, and `--set`."""

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.load import load_recipe, locate, parse_recipe
from finetune.recipe.schema import Recipe

TEXT = """\
# A header.
name: mine
stages:
  - {name: head, train: head, solver: probe}
  - name: full
    train: all
    epochs: 10
    lr: 1e-4
    early_stopping: {patience: 3}
training:
  batch_size: 8
"""
TWO = "stages has 2 entries, numbered 0 to 1"
NO_YAML = "is not valid YAML"


def error(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, source="mine.yaml", overrides=overrides)
    return caught.value


def lines(text, *overrides):
    return str(error(text, *overrides)).splitlines()


def load_error(source, **keywords):
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, **keywords)
    return str(caught.value)


def test_a_file_and_a_mapping_build_equal_recipes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    recipe = load_recipe(path)
    assert recipe == load_recipe(str(path)) == parse_recipe(TEXT, source="x")
    assert recipe == Recipe(
        name="mine",
        stages=[
            {"name": "head", "train": "head", "solver": "probe"},
            {
                "name": "full",
                "train": "all",
                "epochs": 10,
                "lr": 1e-4,
                "early_stopping": {"patience": 3},
            },
        ],
        training={"batch_size": 8},
    )


def test_a_name_loads_the_recipe_that_ships_with_the_package():
    assert load_recipe("default").name == "default"


def test_a_recipe_loads_as_itself():
    recipe = parse_recipe(TEXT, source="x")
    assert load_recipe(recipe) == recipe


def test_the_byte_order_mark_of_a_windows_editor_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode().replace(b"\n", b"\r\n"))
    assert load_recipe(path).name == "mine"


def test_values_are_read_as_yaml_1_2_reads_them():
    recipe = parse_recipe(
        "name: no\nseed: 0x10\nstages: [{name: on, train: all, lr: 1e-3}]", source="x"
    )
    assert (recipe.name, recipe.seed) == ("no", 16)
    assert (recipe.stages[0].name, recipe.stages[0].lr) == ("on", 0.001)


def test_what_looks_like_a_date_is_text():
    assert parse_recipe("name: 2026-01-31", source="x").name == "2026-01-31"


def test_every_problem_has_its_line_and_all_are_told_in_order():
    text = (
        TEXT.replace("1e-4", "-1").replace("epochs: 10", "epoch: 10").replace("size: 8", "size: x")
    )
    assert lines(text) == [
        "mine.yaml:7: stages.1.epoch: unknown value 'epoch' (did you mean epochs?)",
        "mine.yaml:8: stages.1.lr: must be greater than 0, got -1",
        "mine.yaml:11: training.batch_size: expected a whole number, got 'x'",
    ]


def test_a_problem_carries_path_line_message_and_hint():
    [problem] = error("sed: 3").problems
    assert (problem.path, problem.line) == ("sed", 1)
    assert (problem.message, problem.hint) == ("unknown value 'sed'", "did you mean seed?")


def test_a_missing_value_has_the_line_of_its_section():
    assert lines("name: x\nstages:\n  - name: y\n") == [
        "mine.yaml:3: stages.0.train: is missing; it has no default"
    ]


def test_a_value_within_a_component_has_its_own_line():
    text = "model:\n  head:\n    kind: mlp\n    hidden: none\nstages: [{name: a, train: all}]"
    assert lines(text) == ["mine.yaml:4: model.head.hidden: expected a whole number, got 'none'"]


def test_values_that_contradict_each_other_have_the_line_of_one_of_them():
    text = TEXT.replace("epochs: 10", "epochs: 3")
    assert lines(text) == [
        "mine.yaml:9: stages.1.early_stopping.patience: "
        "early stopping with patience 3 cannot fire within epochs: 3"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b", "2: name: is given twice, first in line 1"),
        (
            "model:\n  head: {kind: linear, kind: mlp}",
            "2: model.head.kind: is given twice, first in line 2",
        ),
        (
            "name: !!python/object:os.system x",
            "1: name: the tag !!python/object:os.system is not part of a recipe; "
            "only plain values are",
        ),
        (
            "data:\n  path: !env HOME",
            "2: data.path: the tag !env is not part of a recipe; only plain values are",
        ),
        (
            "data: &d {path: x}\nruntime: *d",
            "2: runtime: an alias (*) is not part of a recipe; write it out",
        ),
        ("? [a]\n: b", "1: a name must be a word, not a list or a mapping"),
        (
            "evaluate: {<<: {select_by: val_accuracy}}",
            "1: evaluate.<<: unknown value '<<' (allowed: select_by, temperature, "
            "reject_at_precision, conformal_coverage, novelty)",
        ),
        ("training:", "1: training: is empty (give it a value, or leave it out)"),
    ],
)
def test_what_a_recipe_may_not_hold_is_told_by_line(text, expected):
    assert lines(text) == [f"mine.yaml:{expected}"]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("a: b: c", ":1", "mapping values are not allowed here"),
        ("name: x\nseed: [1", ":2", "expected ',' or ']', but got 'stream end'"),
        ("data:\n\tpath: x", ":2", "there is a tab where spaces are wanted"),
        ("name: 'x", ":1", "found unexpected end of stream"),
        ("name: a\n---\nname: b", ":2", "there is more than one document"),
        (
            "name: a\x00b",
            "",
            "unacceptable character #x0000: special characters are not allowed",
        ),
    ],
)
def test_what_is_not_yaml_is_told_in_one_sentence(text, place, expected):
    assert lines(text) == [f"mine.yaml{place}: is not valid YAML: {expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- name: x", "mine.yaml:1: is no recipe"),
        ("just words", "mine.yaml:1: is no recipe"),
        ("", "mine.yaml: is empty"),
        ("# a comment\n", "mine.yaml: is empty"),
    ],
)
def test_what_is_no_mapping_is_told_with_an_example(text, expected):
    assert lines(text) == [
        f"{expected}: a recipe is a mapping of names and values",
        "hint: finetune recipes show default",
    ]


def test_a_file_nested_without_end_is_told():
    assert lines("a: " + "[" * 1000) == ["mine.yaml: is nested too deeply"]


def test_aliases_cannot_grow_a_file():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    assert any("an alias (*) is not part of a recipe" in line for line in lines(bomb))


def test_what_the_yaml_library_warns_of_is_not_shown(recwarn):
    parse_recipe("schema_version: &x 1\nseed: &x 2\n", source="mine.yaml")
    assert list(recwarn) == []


def test_a_number_with_more_digits_than_python_reads_is_told():
    assert "cannot be read as a value" in str(error(f"seed: {'1' * 5000}"))


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(text):
    with contextlib.suppress(RecipeError):
        assert parse_recipe(text, source="x").schema_version == 1


def test_an_unknown_name_is_told_with_the_nearest(tmp_path):
    assert load_error("defualt") == (
        "there is no recipe 'defualt'; there are default, from-scratch, gradual, imbalanced, "
        "probe, small-data, vit (did you mean default?)\n"
        "hint: finetune recipes ls"
    )


def test_a_missing_file_is_told(tmp_path):
    path = tmp_path / "gone.yaml"
    assert load_error(path) == (
        f"{path}: there is no such file\n"
        "hint: finetune recipes ls lists the recipes that ship with finetune"
    )
    assert "there is no such file" in load_error("gone.yml")


def test_a_folder_is_told(tmp_path):
    assert load_error(tmp_path).startswith(f"{tmp_path}: is a folder; a recipe is a YAML file\n")


def test_a_run_folder_is_told_with_its_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(TEXT)
    assert load_error(str(tmp_path)).endswith(f"hint: did you mean {tmp_path / 'recipe.yaml'}?")


def test_a_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: x\ndata: {path: \xff}\n")
    assert load_error(path) == f"{path}:2: is not UTF-8 text: invalid start byte"


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"#" * 1_000_001)
    assert load_error(path).startswith(f"{path}: has 1,000,001 bytes; that is no recipe")


def test_a_file_that_cannot_be_read_is_told():
    assert load_error("x" * 5000 + ".yaml").endswith(": cannot be read: File name too long")
    assert "cannot be read" in load_error("a\0b.yaml")


def test_a_flag_sets_a_value():
    recipe = parse_recipe(
        TEXT, source="x", overrides=["stages.1.epochs=20", "name=other", "data.path=a b"]
    )
    assert (recipe.stages[1].epochs, recipe.name, recipe.data.path) == (20, "other", "a b")


def test_a_flag_gives_a_value_that_the_file_lacks():
    recipe = parse_recipe("name: x", source="x", overrides=["stages.0.train=head", "augment=none"])
    assert recipe.augment.kind == "none"


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("stages.1.lr=1e-3", "stages.1.lr", 0.001),
        ("stages.1.early_stopping=null", "stages.1.early_stopping", None),
        ("stages.1.early_stopping=", "stages.1.early_stopping", None),
        ("stages.1.train={last: 2}", "stages.1.train.last", 2),
        ("stages.1.train.last=2", "stages.1.train.last", 2),
        ("stages.1.optimizer.name=sgd", "stages.1.optimizer.name", "sgd"),
        ("model.pretrained=false", "model.pretrained", False),
        ("model.backbone=local-dir:a/b", "model.backbone", "local-dir:a/b"),
    ],
)
def test_the_value_of_a_flag_is_read_as_yaml(override, path, expected):
    value = parse_recipe(TEXT, source="x", overrides=[override])
    for part in path.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    assert value == expected


def test_the_last_of_two_flags_stands():
    assert parse_recipe(TEXT, source="x", overrides=["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.1.lr=-1", "stages.1.lr: must be greater than 0, got -1, from --set"),
        ("stage.1.lr=3", "stage: unknown value 'stage', from --set (did you mean stages?)"),
        (
            "stages.1.epoch=3",
            "stages.1.epoch: unknown value 'epoch', from --set (did you mean epochs?)",
        ),
        ("stages.2.lr=1", f"stages.2: there is no stages.2: {TWO}, from --set"),
        ("stages.-1.lr=1", f"stages.-1: there is no stages.-1: {TWO}, from --set"),
        (
            "stages.full.lr=1",
            f"stages.full: there is no stages.full: {TWO}, from --set (did you mean stages.1?)",
        ),
        (
            "training.batch_size.x=1",
            "training.batch_size: training.batch_size is 8; nothing can be set in it, from --set",
        ),
        ("seed", "PATH=VALUE is wanted, got 'seed', from --set"),
        ("=3", "PATH=VALUE is wanted, got '=3', from --set"),
        ("seed=a: b: c", f"seed: {NO_YAML}: mapping values are not allowed here, from --set"),
        (
            "name=!!python/name:x y",
            "name: the tag !!python/name:x is not part of a recipe; only plain values are, "
            "from --set",
        ),
        (
            "stages.1.train.lst=2",
            "stages.1.train: unknown value 'lst'; allowed: all, bias, head, norm, {blocks: …}, "
            "{last_blocks: …}, {last: …}, {lora: …}, {match: …}, from --set (did you mean last?)",
        ),
    ],
)
def test_a_wrong_flag_is_told_as_a_flag(override, expected):
    assert lines(TEXT, override) == [f"mine.yaml: {expected}"]


def test_wrong_flags_and_wrong_lines_are_told_together():
    assert lines(TEXT.replace("size: 8", "size: 0"), "stages.7.lr=1", "sed=1") == [
        "mine.yaml:11: training.batch_size: must be at least 1, got 0",
        f"mine.yaml: stages.7: there is no stages.7: {TWO}, from --set",
        "mine.yaml: sed: unknown value 'sed', from --set (did you mean seed?)",
    ]


def test_flags_apply_to_mappings_and_recipes_without_changing_them():
    mapping = {"training": {"batch_size": 4}}
    recipe = Recipe(**mapping)
    assert load_recipe(mapping, overrides=["training.batch_size=8"]).training.batch_size == 8
    assert load_recipe(recipe, overrides=["training.batch_size=8"]).training.batch_size == 8
    assert mapping == {"training": {"batch_size": 4}}
    assert recipe.training.batch_size == 4


def test_a_problem_found_later_gets_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    problem = error(TEXT.replace("1e-4", "-1")).problems[0]
    [located] = locate([problem], source=path)
    assert (located.line, located.message) == (8, problem.message)
    assert locate([problem], source="default")[0].line is not None


def test_loading_a_recipe_loads_nothing_heavy():
    heavy = "{'numpy', 'torch', 'timm', 'sklearn', 'albumentations', 'PIL', 'cv2', 'accelerate'}"
    code = (
        "import sys; from finetune.recipe.load import load_recipe; load_recipe('vit'); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
