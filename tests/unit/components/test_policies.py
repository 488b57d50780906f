"""What each form of `train:` lets learn, and what a person reads who writes none of them."""

from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from finetune.components import policies
from finetune.components.policies import (
    HeadPolicy,
    LastPolicy,
    LoraSettings,
    Policy,
    PythonPolicy,
    lora_of,
)
from finetune.errors import MissingExtraError, RecipeError
from finetune.recipe.stages import Stage
from finetune.types import ParamInfo, ParamRule

FORMS = "all, bias, head, norm, {blocks: …}, {last_blocks: …}, {last: …}, {lora: …}, {match: …}"


def param(name, *, depth, block, kind=""):
    is_small = kind in ("norm", "bias")
    return ParamInfo(
        name,
        depth=depth,
        block=block,
        is_head=depth == 4,
        is_norm=kind == "norm",
        ndim=1 if is_small else 4,
        depth_name={0: "stem", 4: "head"}.get(depth, str(depth)),
    )


# A stem, three stages of which the last two have two blocks, and a head.
PARAMS = (
    param("stem.weight", depth=0, block=0),
    param("stem.norm.weight", depth=0, block=0, kind="norm"),
    param("stages.0.weight", depth=1, block=1),
    param("stages.1.0.weight", depth=2, block=2),
    param("stages.1.1.weight", depth=2, block=3),
    param("stages.2.0.weight", depth=3, block=4),
    param("stages.2.1.weight", depth=3, block=5),
    param("stages.2.1.bias", depth=3, block=5, kind="bias"),
    param("head.weight", depth=4, block=6),
    param("head.bias", depth=4, block=6, kind="bias"),
)
HEAD = ["head.weight", "head.bias"]
# A layer of the last stage with an adapter beside it, as peft names them.
ADAPTED = (
    param("stages.2.1.base_layer.weight", depth=3, block=5),
    param("stages.2.1.lora_A.default.weight", depth=3, block=5),
    param("stages.2.1.lora_B.default.weight", depth=3, block=5),
)


class Everything:
    """A policy as a Python user writes one."""

    def rules(self, params):
        return [ParamRule(one.name, trainable=True) for one in params]


def read(form):
    return Stage(name="one", train=form).train


def trained(form):
    return [rule.name for rule in read(form).rules(PARAMS) if rule.trainable]


def message(form):
    with pytest.raises(RecipeError) as caught:
        read(form)
    return str(caught.value)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("head", HEAD),
        ("all", [one.name for one in PARAMS]),
        ("bias", ["stages.2.1.bias", *HEAD]),
        ("norm", ["stem.norm.weight", *HEAD]),
        ({"last": 1}, ["stages.2.0.weight", "stages.2.1.weight", "stages.2.1.bias", *HEAD]),
        ({"last_blocks": 1}, ["stages.2.1.weight", "stages.2.1.bias", *HEAD]),
        ({"blocks": ["stem", 1]}, ["stem.weight", "stem.norm.weight", "stages.0.weight", *HEAD]),
        ({"blocks": [0]}, ["stem.weight", "stem.norm.weight", *HEAD]),
        ({"match": r"stages\.1\.\d"}, ["stages.1.0.weight", "stages.1.1.weight", *HEAD]),
    ],
)
def test_a_policy_lets_learn_what_it_names_and_the_head(form, expected):
    assert trained(form) == expected


def test_adapters_and_the_head_learn_and_decay_as_other_matrices_do():
    rules = read({"lora": {"rank": 8}}).rules([*ADAPTED, *PARAMS])
    learning = [rule.name for rule in rules if rule.trainable]
    assert learning == [one.name for one in ADAPTED[1:]] + HEAD
    assert [rule.decay for rule in rules if rule.trainable] == [True, True, True, False]


def test_alpha_is_twice_the_rank_unless_given():
    assert LoraSettings(rank=4).scaled_alpha == 8
    assert LoraSettings(rank=4, alpha=4).scaled_alpha == 4


def test_a_policy_says_whether_it_asks_for_adapters():
    assert lora_of(read({"lora": {"rank": 3}})) == LoraSettings(rank=3)
    assert lora_of(read("all")) is None
    assert lora_of(read(Everything())) is None


def test_without_the_library_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        LoraSettings().check()
    assert str(caught.value) == (
        "train: {lora: …} needs a package that is not installed\n"
        'hint: pip install "finetune-vision[lora]"'
    )


def test_a_policy_answers_for_each_parameter_in_order():
    assert [rule.name for rule in read("head").rules(PARAMS)] == [one.name for one in PARAMS]


def test_weights_of_several_dimensions_decay_and_nothing_else():
    decayed = [rule.name for rule in read("all").rules(PARAMS) if rule.decay]
    assert decayed == [one.name for one in PARAMS if one.name.endswith("weight") and one.ndim > 1]
    assert "stem.norm.weight" not in decayed


def test_what_an_architecture_leaves_out_of_weight_decay_is_left_out():
    table = replace(param("blocks.0.attn.table", depth=1, block=1), is_undecayed=True)
    assert [rule.decay for rule in read("all").rules([*PARAMS[:1], table])] == [True, False]


def test_more_blocks_than_there_are_let_everything_learn():
    assert len(trained({"last_blocks": 99})) == len(PARAMS)


@pytest.mark.parametrize("word", ["all", "bias", "head", "norm"])
def test_a_word_is_written_as_a_word(word):
    assert read(word).model_dump() == word
    assert read({"kind": word}) == read(word)


@pytest.mark.parametrize(
    "form", [{"last": 2}, {"last_blocks": 4}, {"blocks": ("stem", 3)}, {"match": "norm"}]
)
def test_a_mapping_is_written_as_it_was_read(form):
    assert read(form).model_dump() == form


def test_a_policy_passes_through_unchanged():
    policy = LastPolicy(last=3)
    assert read(policy) is policy


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("haed", f"train: unknown value 'haed'; allowed: {FORMS} (did you mean head?)"),
        ("last", "train: last wants a value (write {last: …})"),
        ({"lsat": 2}, f"train: unknown value 'lsat'; allowed: {FORMS} (did you mean last?)"),
        (
            {"kind": "lsat"},
            f"train.kind: unknown value 'lsat'; allowed: {FORMS} (did you mean last?)",
        ),
        ({"head": 3}, "train: head takes no value (write head)"),
        ({"last": 0}, "train.last: must be at least 1, got 0"),
        ({"last": "two"}, "train.last: expected a whole number, got 'two'"),
        ({"last": True}, "train.last: expected a whole number, got true"),
        ({"last": 2, "lst": 1}, "train.lst: unknown value 'lst' (did you mean last?)"),
        ({"blocks": []}, "train.blocks: must not be empty"),
        ({"blocks": [-1]}, "train.blocks.0: must be at least 0, got -1"),
        (
            {"blocks": ["stm"]},
            "train.blocks.0: expected a whole number or stem, got 'stm' (did you mean stem?)",
        ),
        (
            {"match": "("},
            "train.match: not a regular expression: "
            "missing ), unterminated subpattern at position 0",
        ),
        ("lora", "train: lora wants a value (write {lora: …})"),
        ({"lora": 8}, "train.lora: expected a mapping, got 8"),
        ({"lora": {"rank": 0}}, "train.lora.rank: must be at least 1, got 0"),
        ({"lora": {"rank": 2.5}}, "train.lora.rank: expected a whole number, got 2.5"),
        ({"lora": {"alpha": 0}}, "train.lora.alpha: must be greater than 0, got 0"),
        ({"lora": {"dropout": 1}}, "train.lora.dropout: must be less than 1, got 1"),
        ({"lora": {"rnak": 4}}, "train.lora.rnak: unknown value 'rnak' (did you mean rank?)"),
        (
            {"lora": {"targets": "["}},
            "train.lora.targets: not a regular expression: "
            "unterminated character set at position 0",
        ),
        ({}, f"train: unknown value nothing; allowed: {FORMS}"),
        (None, f"train: expected {FORMS}, got nothing"),
        (3, f"train: expected {FORMS}, got 3"),
        (["head"], f"train: expected {FORMS}, got a list"),
        ("python", f"train: unknown value 'python'; allowed: {FORMS}"),
    ],
)
def test_an_unknown_form_is_told_with_what_is_allowed(form, expected):
    assert message(form) == expected


def test_any_object_with_the_verb_is_a_policy_in_python():
    policy = read(Everything())
    assert isinstance(policy, PythonPolicy)
    assert all(rule.trainable for rule in policy.rules(PARAMS))


def test_an_object_without_the_verb_is_refused():
    assert message(object()) == (
        "train: an object of class object is not a freeze policy: it has no method rules"
    )


def test_a_class_in_place_of_an_object_is_refused():
    assert message(Everything) == "train: Everything is a class; pass an object, Everything()"


def test_a_file_cannot_name_a_policy_of_python():
    written = read(Everything()).model_dump(mode="json")
    assert written["kind"] == "python"
    assert written["given"].endswith("test_policies.Everything")
    assert message(written) == (
        "train.given: a freeze policy made in Python cannot be named in a file; pass it as train="
    )


def test_an_adapter_reads_policies_too():
    assert TypeAdapter(Policy).validate_python("head") == HeadPolicy()


def test_attention_has_biases_by_other_names_and_tables_that_are_none():
    others = (
        param("blocks.0.attn.q_bias", depth=3, block=5, kind="bias"),
        param("blocks.0.attn.pos_bias", depth=3, block=5),
        param("blocks.0.attn.relative_position_bias_table", depth=3, block=5),
    )
    rules = read("bias").rules(others)
    assert [rule.name for rule in rules if rule.trainable] == ["blocks.0.attn.q_bias"]
