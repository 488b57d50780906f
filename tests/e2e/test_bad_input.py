"""Bad input, by name: the sentence, the hint, the exit code, and nothing half-written."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # each mistake is made in a process of its own

SMALL = (
    "schema_version: 1\nname: small\nmodel: {backbone: test_resnet, pretrained: false}\n"
    "augment: light\nruntime: {precision: fp32, device: cpu}\n"
)
PROBE = "stages:\n  - {name: head, train: head, solver: probe}\n"
FULL = "stages:\n  - {name: full, train: all, epochs: 1}\n"

RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def finetune(tmp_path: Path) -> RunCommand:
    """Run the command as a person does, in a folder of its own."""

    def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "finetune", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            **options,  # type: ignore[call-overload]
        )

    return command


@pytest.fixture
def photos(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny folder that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "photos"))


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(stages: str) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(SMALL + stages)
        return path

    return write


def test_odd_images_are_trained_on_and_damaged_ones_are_named(
    finetune: RunCommand, photos: Path, recipe: Callable[[str], Path], tmp_path: Path
) -> None:
    Image.new("RGB", (1, 1), (200, 50, 40)).save(photos / "red" / "one.png")
    Image.new("RGB", (2000, 3), (40, 170, 60)).save(photos / "green" / "wide.png")
    Image.new("1", (10_000, 10_000), 1).save(photos / "blue" / "huge.png")
    (photos / "red" / "empty.jpg").touch()
    (photos / "red" / "text.jpg").write_text("no image")
    whole = (photos / "red" / "red_00.png").read_bytes()
    (photos / "red" / "half.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "mit Leerzeichen und Ümläut 猫.png").write_bytes(whole[:-1] + whole[-1:])
    shutil.copyfile(photos / "blue" / "blue_00.png", photos / "blue" / ("b" * 246 + ".png"))
    (photos / ".hidden").mkdir()
    done = finetune("run", "--data", photos, "--recipe", recipe(FULL), "--out", "run")
    assert done.returncode == 0, done.stderr
    for name, reason in (
        ("empty.jpg", "empty"),
        ("text.jpg", "not an image"),
        ("half.png", "trunc"),
    ):
        line = next(line for line in done.stderr.splitlines() if name in line)
        assert reason in line
    split = (tmp_path / "run" / "split.csv").read_text(encoding="utf-8")
    for name in ("one.png", "wide.png", "huge.png", "Ümläut 猫.png", "b" * 246):
        assert name in split
    for name in ("empty.jpg", "text.jpg", "half.png"):
        assert name not in split


def test_full_disk_is_one_sentence_and_leaves_no_half_model(
    finetune: RunCommand, photos: Path, recipe: Callable[[str], Path], tmp_path: Path
) -> None:
    limit = 500_000  # bytes a file: enough for the tables, too few for the weights

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = finetune(
        *("run", "--data", photos, "--recipe", recipe(PROBE), "--out", "run"), preexec_fn=restrict
    )
    assert done.returncode == 1
    assert "error: cannot write run/model: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["environment.json", "events.jsonl", "history.csv", "recipe.yaml", "split.csv"]


RANDOM_VIT = ["--data", "photos", "--no-pretrained", "--backbone", "test_vit", "--set"]
CASES = [
    (["--data", "nowhere"], 3, "there is no folder or file", ""),
    (
        ["--data", "photos", "--backbone", "resnet81"],
        4,
        "knows no architecture 'resnet81'",
        "backb",
    ),
    (["--data", "photos", "--backbone", "resnet18"], 4, "no pretrained weights for", "--weights"),
    (["--data", "photos", "--recipe", "defualt"], 2, "defualt", "default"),
    (["--data", "photos", "--set", "stages.1.lr=-1"], 2, "stages.1.lr", "greater than 0"),
    (["--data", "photos", "--set", "trainign.ema=1"], 2, "trainign", "training"),
    (["--data", "photos", "--set", "stages.1.epochs=many"], 2, "stages.1.epochs", "many"),
    (
        ["--data", "photos", "--set", "stages.1.train={match: nothing_like_it, x: 1}"],
        2,
        "stages.1.train",
        "",
    ),
    (["--data", "photos", "--set", "stages.1.optimizer=adamm"], 2, "adamm", "adam"),
    (["--data", "photos", "--set", 'seed=!!int ""'], 2, "seed", "cannot be read as a value"),
    (
        [
            *("--data", "photos", "--set"),
            "stages.1.optimizer={name: adamw, options: {betas: [0.9]}}",
        ],
        2,
        "stages.1.optimizer",
        "adamw cannot be made",
    ),
    (
        [
            *("--data", "photos", "--set"),
            "augment={kind: albumentations, transforms: [{name: OneOf, transforms: "
            "[{name: HorizontalFlip, p: 0}]}]}",
        ],
        2,
        "augment",
        "OneOf",
    ),
    (
        [*RANDOM_VIT, "evaluate.select_by=val_top_5_accuracy"],
        2,
        "evaluate.select_by: val_top_5_accuracy is undefined for these validation photos",
        "val_macro_f1 is always defined",
    ),
    (["--data", "photos", "--device", "cuda:9"], 1, "device cuda:9 is not there", "auto"),
    (["--data", "photos", "--out", "photos"], 1, "exists and is not empty", "--overwrite"),
    (["--data", "photos", "--weights", "no.safetensors"], 4, "there is no weights file", "check"),
    (
        [
            *("--data", "photos", "--no-pretrained", "--backbone", "test_vit"),
            "--set",
            "model.image_size=100",
        ],
        4,
        "test_vit cannot take images of 100 x 100 px: Input height (100) should be divisible",
        "hint: model.image_size can be 96, 112, 160 x 160 px",
    ),
    (
        [
            *("--data", "photos", "--no-pretrained", "--backbone", "test_vit"),
            "--set",
            "stages.1.train={last: 40}",
        ],
        2,
        "stages.1.train.last: the backbone has 7 coarse groups, not 40",
        "write all, or {last: 7} at most",
    ),
    (
        [
            *("--data", "photos", "--no-pretrained", "--backbone", "test_vit"),
            "--set",
            "stages.1.train={lora: {targets: nothing_like_it}}",
        ],
        2,
        "stages.1.train",
        "nothing_like_it",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "sentence", "more"), CASES)
def test_each_mistake_is_a_sentence_with_its_exit_code(
    finetune: RunCommand,
    photos: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    sentence: str,
    more: str,
) -> None:
    done = finetune("run", *arguments)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert more in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_weights_within_reach_ends_at_once(finetune: RunCommand, photos: Path) -> None:
    done = finetune(
        "run", "--data", photos, "--backbone", "hf-hub:timm/resnet18.a1_in1k", timeout=60
    )
    assert done.returncode == 4
    assert "hint:" in done.stderr


def test_model_of_other_classes_does_not_test_this_data(
    finetune: RunCommand, photos: Path, recipe: Callable[[str], Path], tmp_path: Path
) -> None:
    assert (
        finetune("run", "--data", photos, "--recipe", recipe(PROBE), "--out", "run").returncode == 0
    )
    shutil.copytree(photos / "red", tmp_path / "other" / "crimson")
    done = finetune("evaluate", "run", "--data", "other")
    assert done.returncode == 3
    assert "none of the classes in other is known to the model: crimson" in done.stderr
    assert "the model knows blue, green, red" in done.stderr
