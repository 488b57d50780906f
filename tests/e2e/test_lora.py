"""A stage of adapters runs between any others, and what is saved is a plain timm model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.components import policies
from finetune.errors import MissingExtraError, RecipeError
from finetune.pipeline import Run, run
from finetune.plan import plan
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.torchvision_ops import register_missing_ops
from finetune.train.events import EpochEnded, Event, StageEnded, StageStarted

HEAD = {"name": "head", "train": "head", "solver": "probe"}
LORA = {"name": "lora", "train": {"lora": {"rank": 4, "dropout": 0.1}}, "epochs": 2, "lr": 1e-3}
FULL = {"name": "full", "train": "all", "epochs": 1, "lr": 1e-4}
MakeRun = Callable[..., tuple[Run, list[Event]]]


def make_recipe(folder: Path, *stages: dict[str, object], **values: object) -> Recipe:
    return load_recipe(
        {
            "model": {"backbone": "test_vit", "pretrained": False},
            "data": {"path": str(folder)},
            "augment": "light",
            "runtime": {"precision": "fp32", "device": "cpu", "workers": 0},
            "stages": list(stages),
            **values,
        }
    )


pytestmark = pytest.mark.slow  # each test trains once or more


@pytest.fixture
def make_run(tiny_folder: Path, tmp_path: Path) -> MakeRun:
    def make(
        *stages: dict[str, object], out: str = "run", **values: object
    ) -> tuple[Run, list[Event]]:
        events: list[Event] = []
        recipe = make_recipe(tiny_folder, *stages, **values)
        return run(recipe, out=tmp_path / out, on_event=events.append), events

    return make


def weights(done: Run) -> dict[str, torch.Tensor]:
    return load_file(done.folder / "model" / "model.safetensors")


def differing(one: Run, other: Run) -> list[str]:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_a_stage_of_adapters_runs_between_others_and_the_model_is_timms(make_run: MakeRun) -> None:
    done, events = make_run(HEAD, LORA, FULL)
    stages = [event.stage for event in events if isinstance(event, EpochEnded)]
    assert stages == ["head", "lora", "lora", "full"]
    started = [event for event in events if isinstance(event, StageStarted)]
    assert sum(row.num_trained for row in started[1].audit) < sum(
        row.num_trained for row in started[2].audit
    )
    document = json.loads((done.folder / "model" / "finetune.json").read_text())
    assert document["timm_loadable"] is True
    assert document["recipe"]["stages"][1]["train"]["lora"]["rank"] == 4
    register_missing_ops()
    import timm

    model = timm.create_model(f"local-dir:{done.folder / 'model'}", pretrained=True)
    assert model.state_dict().keys() == weights(done).keys()


def test_adapters_alone_learn(make_run: MakeRun) -> None:
    lora = {**LORA, "epochs": 25, "lr": 1e-2, "train": {"lora": {"rank": 8}}}
    done, _ = make_run(lora, training={"batch_size": 8})
    assert done.results["val"].figures.accuracy >= 0.8


def test_a_stage_that_fell_below_its_probe_leaves_every_tensor_as_it_was(make_run: MakeRun) -> None:
    backbone = {"backbone": "test_byobnet", "pretrained": False}
    wrecking = {**LORA, "epochs": 1, "lr": 5.0, "optimizer": "sgd"}
    clipped = {"model": backbone, "training": {"clip_norm": 1.0}}
    probed, _ = make_run(HEAD, **clipped)
    done, events = make_run(HEAD, wrecking, out="wrecked", **clipped)
    ended = [event for event in events if isinstance(event, StageEnded)]
    assert ended[1].note == "no epoch was better than stage head; its weights are kept"
    assert differing(probed, done) == []


def test_an_average_of_the_weights_is_merged_too(make_run: MakeRun) -> None:
    done, _ = make_run({**LORA, "epochs": 1}, training={"ema": 0.9})
    assert not [name for name in weights(done) if "lora" in name or "base_layer" in name]


def test_the_same_recipe_gives_the_same_weights(make_run: MakeRun) -> None:
    one, _ = make_run(LORA)
    other, _ = make_run(LORA, out="again")
    assert differing(one, other) == []


def test_a_head_of_ours_and_channels_last_do_as_well(make_run: MakeRun) -> None:
    done, _ = make_run(
        {**LORA, "train": {"lora": {"rank": 2, "targets": "conv"}}},
        model={"backbone": "test_resnet", "pretrained": False, "head": {"kind": "mlp"}},
        runtime={"precision": "bf16", "memory_format": "channels_last", "device": "cpu"},
    )
    assert not [name for name in weights(done) if "lora" in name or "base_layer" in name]


def test_a_plan_without_the_library_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        plan(make_recipe(tmp_path / "not_even_looked_at", HEAD, LORA))
    assert caught.value.hint == 'pip install "finetune-vision[lora]"'


def test_a_plan_names_the_stage_whose_targets_are_nowhere(tiny_folder: Path) -> None:
    stage = {**LORA, "train": {"lora": {"targets": "nowhere"}}}
    with pytest.raises(RecipeError) as caught:
        plan(make_recipe(tiny_folder, HEAD, stage))
    assert [problem.path for problem in caught.value.problems] == ["stages.1.train"]


def test_a_run_without_adapters_never_imports_the_library(
    tiny_folder: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from finetune.cli.app import main\n"
        "try:\n    main()\n"
        "finally:\n    print({'peft', 'transformers'} & sys.modules.keys(), file=sys.stderr)"
    )
    arguments = ["run", "--data", str(tiny_folder), "--backbone", "test_resnet"]
    options = ["--no-pretrained", "--recipe", "probe", "--out", str(tmp_path / "run"), "--quiet"]
    command = [sys.executable, "-c", program, *arguments, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set()"
