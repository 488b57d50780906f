"""A stage begins with what its recipe says, and adapters are there for its length alone."""

import pytest
import torch
from torch import nn

from finetune.components.heads import LinearHead
from finetune.errors import RecipeError
from finetune.model.adapters import plain_state
from finetune.model.backbone import create_backbone
from finetune.model.depth import describe_parameters
from finetune.model.network import Network, build_network
from finetune.recipe.load import load_recipe
from finetune.recipe.resolve import resolve
from finetune.recipe.schema import ResolvedRecipe
from finetune.train.best import Best, Candidate
from finetune.train.preview import begin_stage, preview_stages, require_adapters
from finetune.types import BackboneFacts, DataFacts, MachineFacts

STAGES = [
    {"name": "head", "train": "head", "solver": "probe"},
    {"name": "adapters", "train": {"lora": {"rank": 2}}, "layer_decay": 0.5},
    {"name": "all", "train": "all"},
]
DATA = DataFacts(30, 9, (10, 10, 10))
MACHINE = MachineFacts("cpu", "", has_fast_bf16=False, bf16_reason="", num_cpus=2)


def make_network(name: str) -> Network:
    torch.manual_seed(0)
    backbone = create_backbone(name, pretrained=False)
    return build_network(backbone, LinearHead(), num_classes=3, input_size=(3, 160, 160))


def make_recipe(*stages: dict[str, object]) -> ResolvedRecipe:
    recipe = load_recipe({"stages": list(stages) or STAGES, "data": {"path": "photos"}})
    facts = BackboneFacts(family="conv", has_batch_norm=True, num_depths=5, num_blocks=9)
    return resolve(recipe, data=DATA, backbone=facts, machine=MACHINE)


def copies(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def step(network: Network) -> None:
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # after one step of B alone, A learns too
        optimizer.zero_grad()
        network(torch.randn(4, 3, 160, 160)).square().mean().backward()
        optimizer.step()


def test_a_preview_leaves_the_network_as_it_was() -> None:
    network = make_network("test_resnet")
    before, modules = copies(network), list(network.modules())
    preview_stages(network, make_recipe())
    assert all(one is other for one, other in zip(network.modules(), modules, strict=True))
    assert differing(before, network.state_dict()) == set()


def test_the_table_counts_adapters_in_the_depths_of_their_layers() -> None:
    _, adapters, everything = preview_stages(make_network("test_resnet"), make_recipe())
    names = ["stem", "1", "2", "3", "4", "head"]
    assert [row.depth_name for row in adapters.audit] == names
    assert [row.num_frozen for row in adapters.audit][:-1] == [
        row.num_trained for row in everything.audit
    ][:-1]
    # the stem and layer1 have no convolution of one pixel
    learning = [row.depth_name for row in adapters.audit if row.num_trained]
    assert learning == ["2", "3", "4", "head"]
    assert {row.batch_norm for row in adapters.audit} == {"frozen", "none"}


def test_adapters_have_the_rate_of_their_depth() -> None:
    _, adapters, _ = preview_stages(make_network("test_vit"), make_recipe())
    assert adapters.audit[-1].lr == 1e-4
    assert adapters.audit[-3].lr == pytest.approx(1e-4 * 0.5**2)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_byobnet"])
def test_a_stage_of_adapters_changes_adapters_and_the_head_alone(name: str) -> None:
    network = make_network(name)
    before = copies(network)
    with begin_stage(network, make_recipe(), stage_index=1):
        step(network)
        merged = plain_state(network)
    head = {param.name for param in describe_parameters(network) if param.is_head}
    assert differing(before, network.state_dict()) == head
    moved = differing(before, merged)
    assert moved > head
    assert not any("running" in name or "num_batches" in name for name in moved)


def test_the_best_weights_of_a_stage_with_adapters_fit_the_network_without() -> None:
    network, best = make_network("test_vit"), Best("val_accuracy")
    images = torch.randn(2, 3, 160, 160)
    with begin_stage(network, make_recipe(), stage_index=1):
        step(network)
        with torch.no_grad():
            expected = network.eval()(images)
        best.offer(Candidate("adapters", 1, 0.9, 0.1), network)
    best.restore(network)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), expected, atol=1e-5, rtol=1e-5)


def test_a_stage_begins_alike_at_every_repeat_and_unlike_another_stage() -> None:
    recipe = make_recipe(*STAGES[:2], {**STAGES[1], "name": "again"})
    first, second, other = (starting_adapters(recipe, index) for index in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def starting_adapters(recipe: ResolvedRecipe, stage_index: int) -> torch.Tensor:
    network = make_network("test_vit")
    with begin_stage(network, recipe, stage_index=stage_index):
        return torch.cat(
            [
                value.detach().flatten()
                for name, value in network.named_parameters()
                if "lora_A" in name
            ]
        )


def test_a_stage_whose_targets_are_nowhere_is_named() -> None:
    lora = {"name": "adapters", "train": {"lora": {"targets": "nowhere"}}}
    with pytest.raises(RecipeError) as caught:
        require_adapters(make_network("test_resnet"), make_recipe(STAGES[0], lora))
    assert str(caught.value).startswith(
        "stages.1.train: targets 'nowhere' finds none of the layers that can have an adapter\n"
        "hint: there are backbone.conv1.0, "
    )
