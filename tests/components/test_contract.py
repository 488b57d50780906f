"""Every member of every component goes through its contract, so that a new one is tested at once.

What a contract asks is the row of its component in docs: construction from a recipe, and the verb.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.components import trackers
from finetune.components.augment import Augment
from finetune.components.component import list_members
from finetune.components.heads import Head
from finetune.components.metrics import METRICS, is_loss
from finetune.components.policies import Policy
from finetune.components.preprocess import InputSpec
from finetune.components.schedules import Schedule
from finetune.components.section import Section
from finetune.components.trackers import Tracker
from finetune.errors import MissingExtraError
from finetune.recipe.load import dump_recipe, parse_recipe
from finetune.recipe.reference import json_schema, markdown_reference
from finetune.recipe.schema import Recipe
from finetune.types import ParamInfo, ParamRule

AUGMENTS = ["albumentations", "light", "none", "python", "standard", "strong"]
HEADS = ["cosine", "linear", "mlp", "python"]
POLICIES = [
    "all",
    "bias",
    "blocks",
    "head",
    "last_blocks",
    "last",
    "lora",
    "match",
    "norm",
    "python",
]
SCHEDULES = ["constant", "cosine", "one_cycle", "step"]
TRACKERS = ["mlflow", "tensorboard", "wandb"]
NUM_METRICS = 10

# What a member needs beyond its defaults.
NEEDS = {
    "lora": {"lora": {"rank": 2}},
    "albumentations": {"transforms": ["HorizontalFlip"]},
    "blocks": {"blocks": ["stem"]},
    "last": {"last": 1},
    "last_blocks": {"last_blocks": 1},
    "match": {"match": "weight"},
}
PARAMS = (
    ParamInfo("stem.weight", 0, 0, is_head=False, is_norm=False, ndim=4, depth_name="stem"),
    ParamInfo("norm.weight", 1, 1, is_head=False, is_norm=True, ndim=1, depth_name="1"),
    ParamInfo("head.weight", 2, 2, is_head=True, is_norm=False, ndim=2, depth_name="head"),
    ParamInfo("head.bias", 2, 2, is_head=True, is_norm=False, ndim=1, depth_name="head"),
)
SPEC = InputSpec(height=24, width=32, interpolation="bicubic")
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)


class PythonParts:
    """A head and a policy as a Python user writes them."""

    def build(self, in_features, num_classes):
        return torch.nn.Linear(in_features, num_classes)

    def rules(self, params):
        return [ParamRule(param.name, trainable=param.is_head) for param in params]


def flip(image, *, seed):
    return np.ascontiguousarray(image[:, ::-1]) if seed % 2 else image


def make(union, name):
    """Make the member of a component that a name stands for."""
    member = list_members(union)[name]
    given = {"given": PythonParts(), "function": flip} if name == "python" else {}
    held = {key: value for key, value in given.items() if key in member.model_fields}
    return member(**NEEDS.get(name, {}), **held)


def place(union, member):
    """Put a member into a recipe."""
    stage = {"name": "one", "train": "all"}
    if union is Head:
        return Recipe(model={"head": member}, stages=[stage])
    if union is Augment:
        return Recipe(augment=member, stages=[stage])
    if union is Tracker:
        return Recipe(track={"to": [member]}, stages=[stage])
    return Recipe(stages=[{**stage, "train" if union is Policy else "schedule": member}])


MEMBERS = [
    *((Augment, name) for name in AUGMENTS),
    *((Head, name) for name in HEADS),
    *((Policy, name) for name in POLICIES),
    *((Schedule, name) for name in SCHEDULES),
    *((Tracker, name) for name in TRACKERS),
]
IN_FILES = [(union, name) for union, name in MEMBERS if name != "python"]


def test_the_lists_of_this_file_hold_every_member():
    unions = (Augment, Head, Policy, Schedule, Tracker)
    assert [(union, name) for union in unions for name in list_members(union)] == MEMBERS
    assert len(METRICS) == NUM_METRICS


@pytest.mark.parametrize(("union", "name"), MEMBERS, ids=str)
def test_a_member_is_a_documented_frozen_section(union, name):
    member = make(union, name)
    assert isinstance(member, Section)
    assert type(member).__doc__
    with pytest.raises(ValueError, match="frozen"):
        setattr(member, next(iter(type(member).model_fields)), None)


@pytest.mark.parametrize(("union", "name"), IN_FILES, ids=str)
def test_a_member_survives_a_file(union, name):
    recipe = place(union, make(union, name))
    assert parse_recipe(dump_recipe(recipe), source="x") == recipe


@pytest.mark.parametrize(("union", "name"), IN_FILES, ids=str)
def test_a_member_stands_in_the_schema_and_in_the_reference(union, name):
    member = list_members(union)[name]
    assert f'"title": "{member.__name__}"' in json.dumps(json_schema())
    assert f": {name}`" in markdown_reference() or f"{{{name}: …}}`" in markdown_reference()


@pytest.mark.parametrize(("union", "name"), IN_FILES, ids=str)
def test_every_value_of_a_member_says_what_it_means(union, name):
    fields = list_members(union)[name].model_fields
    assert all(field.description for key, field in fields.items() if key != "kind")


@pytest.mark.parametrize("name", HEADS)
def test_a_head_builds_a_module_that_learns(name):
    torch.manual_seed(0)
    module = make(Head, name).build(16, 5)
    logits = module(torch.randn(8, 16))
    assert logits.shape == (8, 5)
    torch.nn.functional.cross_entropy(logits, torch.arange(8) % 5).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_a_fresh_head_favours_no_class(name):
    torch.manual_seed(0)
    probs = make(Head, name).build(64, 4)(torch.randn(512, 64)).softmax(1).mean(0)
    assert probs.max() < 0.5  # an even share is 0.25


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_gives_one_rule_a_parameter_in_order(name):
    rules = make(Policy, name).rules(PARAMS)
    assert [rule.name for rule in rules] == [param.name for param in PARAMS]
    assert all(rule.lr_scale > 0 for rule in rules)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_lets_the_head_learn_and_does_not_depend_on_a_former_call(name):
    policy = make(Policy, name)
    rules = policy.rules(PARAMS)
    assert rules == policy.rules(PARAMS)
    assert all(rule.trainable for rule in rules if rule.name.startswith("head"))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_gives_a_multiple_from_0_to_1(name):
    schedule = make(Schedule, name)
    factors = [schedule.factor(step / 100) for step in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0.9


@pytest.mark.parametrize("name", AUGMENTS)
def test_an_augmentation_gives_pixels_of_the_input_that_follow_from_the_seed(name):
    augment = make(Augment, name)
    augment.check()
    first, second = augment.build(SPEC), augment.build(SPEC)
    seen = [first(IMAGE, seed=seed) for seed in (3, 4, 3)]
    assert {image.shape for image in seen} == {(24, 32, 3)}
    assert {image.dtype for image in seen} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(seen[0], seen[2])
    np.testing.assert_array_equal(seen[0], second(IMAGE, seed=3))


@pytest.mark.parametrize("name", AUGMENTS)
def test_an_augmentation_says_at_which_scales_it_may_find_a_file(name):
    augment = make(Augment, name)
    assert augment.reduction(SPEC) is None
    reduction = augment.reduction(replace(SPEC, decode="reduced"))
    knows = ["light", "none", "standard", "strong"]
    assert (reduction is not None) == (name in knows)
    assert reduction is None or reduction((4000, 3000), (2000, 1500))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_without_its_library_names_the_extra_that_brings_it(name, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda library: None)
    with pytest.raises(MissingExtraError) as caught:
        make(Tracker, name).check()
    assert caught.value.hint == f'pip install "finetune-vision[{name}]"'


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_best_where_every_image_is_right(name):
    labels = np.arange(60) % 6
    right = np.eye(6, dtype=np.float32)[labels] * 0.994 + 0.001
    wrong = np.eye(6, dtype=np.float32)[(labels + 1) % 6] * 0.994 + 0.001
    best, worst = METRICS[name](right, labels), METRICS[name](wrong, labels)
    assert isinstance(best, float)
    assert best < worst if is_loss(name) else best >= worst


def test_the_schema_of_all_members_is_json():
    assert json.loads(json.dumps(json_schema())) == json_schema()
