"""Nothing heavy is imported before it is needed; each check is a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "PIL", "accelerate", "albumentations", "cv2", "huggingface_hub", "jinja2", "matplotlib",
    "mlflow", "numpy", "pandas", "pydantic",
    "rich", "ruamel", "scipy", "sklearn", "tensorboard", "timm", "torch", "torchvision", "wandb",
}  # fmt: skip
COMMANDS = (
    "run",
    "evaluate",
    "predict",
    "recipes",
    "report",
    "check",
    "backbones",
    "cache",
    "doctor",
    "demo",
)


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the top-level modules it leaves behind."""
    return {name.partition(".")[0] for name in all_modules_after(code)}


def all_modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the modules it leaves behind, in full."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(finished.stderr.splitlines()[-1]))


def call(*arguments: str) -> str:
    return f"from finetune.cli.app import main\nassert main({list(arguments)!r}) == 0"


@pytest.mark.parametrize(
    "code",
    [
        "import finetune",
        "import finetune.cli",
        "import finetune.cli.app",
        call("--help"),
        call("--version"),
    ],
)
def test_a_face_imports_nothing_heavy(code: str) -> None:
    assert not modules_after(code) & HEAVY


@pytest.mark.parametrize("arguments", [(), *((command, "--help") for command in COMMANDS)])
def test_the_help_of_a_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    # typer itself checks the values of flags with pydantic
    assert not modules_after(call(*arguments)) & (HEAVY - {"pydantic"})


def test_listing_backbones_imports_neither_timm_nor_torch() -> None:
    loaded = modules_after(call("backbones", "efficientnet_b0", "--json"))
    assert not loaded & (HEAVY - {"pydantic", "rich"})


def run_probe(data: Path, *more: str) -> str:
    network = ("--backbone", "test_resnet", "--no-pretrained", "--device", "cpu")
    return call("run", "--data", str(data), "--recipe", "probe", *network, *more)


@pytest.mark.slow
def test_no_run_waits_for_charts_before_its_training_is_over(
    tiny_folder: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
from finetune.pipeline import run
from finetune.recipe.load import load_recipe
seen = []
def look(event):
    if type(event).__name__ in ("StageEnded", "RunEnded"):
        seen.append({{"matplotlib"}} & set(sys.modules))
model = {{"backbone": "test_resnet", "pretrained": False}}
recipe = load_recipe({{"model": model, "data": {{"path": {str(tiny_folder)!r}}}}})
run(recipe, out=Path({str(tmp_path / "run")!r}), on_event=look)
assert seen == [set(), {{"matplotlib"}}], seen
"""
    assert "matplotlib" in modules_after(code)


@pytest.mark.slow
def test_a_run_of_a_probe_imports_nothing_that_augments_or_compiles(
    tiny_folder: Path, tmp_path: Path
) -> None:
    loaded = all_modules_after(run_probe(tiny_folder, "--out", str(tmp_path / "run")))
    assert {"torch", "timm", "sklearn"} <= loaded
    assert not loaded & {"albumentations", "cv2", "peft", "transformers"}
    assert not loaded & {"sympy", "torch._dynamo", "torch.distributed.tensor"}


@pytest.mark.slow
def test_a_plan_of_a_probe_does_not_import_what_would_fit_it(tiny_folder: Path) -> None:
    loaded = modules_after(run_probe(tiny_folder, "--dry-run"))
    assert "timm" in loaded
    assert not loaded & {"albumentations", "cv2", "pandas", "scipy", "sklearn"}


def test_the_command_is_also_python_dash_m() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "finetune", "--version"], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("finetune ")
