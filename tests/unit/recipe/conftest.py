"""Resolution for facts that differ from a common case in what a test names."""

from collections.abc import Callable

import pytest

from finetune.recipe.load import load_recipe
from finetune.recipe.resolve import resolve
from finetune.recipe.schema import ResolvedRecipe
from finetune.types import BackboneFacts, DataFacts, MachineFacts

COMMON = {
    "num_train": 600,
    "family": "conv",
    "num_depths": 7,
    "num_blocks": 19,
    "crop_mode": "center",
    "device": "cpu",
    "has_fast_bf16": False,
    "num_cpus": 4,
    "bf16_pass_gain": 1.2,
}


@pytest.fixture
def resolved() -> Callable[..., ResolvedRecipe]:
    """Resolve a recipe, by default for 600 photos, a small convolutional network and four cores."""

    def make(source="default", *overrides, **given):
        recipe = load_recipe(source, overrides=["data.path=photos", *overrides])
        values = COMMON | given
        counts = DataFacts(values["num_train"], 100, (values["num_train"],))
        backbone = BackboneFacts(
            family=values["family"],
            has_batch_norm=values["family"] == "conv",
            num_depths=values["num_depths"],
            num_blocks=values["num_blocks"],
            crop_mode=values["crop_mode"],
        )
        machine = MachineFacts(
            device=values["device"],
            device_reason="auto: it is there",
            has_fast_bf16=values["has_fast_bf16"],
            bf16_reason="it was measured",
            num_cpus=values["num_cpus"],
            bf16_pass_gain=values["bf16_pass_gain"],
        )
        return resolve(recipe, data=counts, backbone=backbone, machine=machine)

    return make
