"""The folder of a run that never took place: written by the package's own writers, in no time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from finetune.components.preprocess import Preprocessing
from finetune.data.leaks import Leaks
from finetune.evaluate.evaluate import evaluate
from finetune.model.bundle import Bundle
from finetune.recipe.load import dump_recipe, load_recipe
from finetune.report.log import RunLog
from finetune.report.tables import MetricsHeader, ProbeFigures, write_tables
from finetune.runtime.folder import RunFolder
from finetune.train.events import DataFound, EpochEnded, StageEnded, Warned
from finetune.types import LeftOut, Looks, Outputs

__all__ = ["Plan", "make_bundle", "write_photos", "write_run"]


@dataclass(frozen=True)
class Plan:
    """What a run shall look like.

    Attributes:
        classes: Names.
        num_photos: Of each part, test and val.
        accuracy: Share that is right, about.
        num_train: Training photos of each class.
        num_leaked: Test photos that were trained on.
        has_test: Whether there is a test part.
        probe: Accuracy of the probe on validation.
        epochs: Of the stage after it.
        is_overfitted: Whether the validation loss rises again.
    """

    classes: Sequence[str] = ("ants", "bees", "wasps")
    num_photos: int = 60
    accuracy: float = 0.8
    num_train: int = 30
    num_leaked: int = 0
    has_test: bool = True
    probe: float = 0.6
    epochs: int = 4
    is_overfitted: bool = False


def write_run(
    folder: Path, plan: Plan | None = None, *, data: Path | None = None, names: Sequence[str] = ()
) -> Path:
    """Write the files of a run, the model excepted.

    Args:
        folder: The run folder; made.
        plan: What it shall look like.
        data: The data folder; where it is given, the photos of the test part are written.
        names: Names of the first photos; the others are made up.
    """
    plan = plan or Plan()
    folder.mkdir(parents=True, exist_ok=True)
    parts = ("val", "test") if plan.has_test else ("val",)
    outputs = {part: make_outputs(plan, part, names) for part in parts}
    results = {part: evaluate(given, split=part) for part, given in outputs.items()}
    write_tables(results, folder, header=_header(folder, plan))
    _write_log(RunFolder(folder), plan)
    recipe = load_recipe({"name": "invented", "data": {"path": str(data or folder / "photos")}})
    text = dump_recipe(recipe).replace("name: invented", "name: invented # a reason, <b>bold</b>")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    environment = {
        "schema_version": 1,
        "versions": {"python": "3.12.0"},
        "device": "cpu",
        "seed": 0,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    if data is not None:
        write_photos(data, outputs[parts[-1]].names)
    return folder


def make_outputs(plan: Plan, part: str, names: Sequence[str] = ()) -> Outputs:
    """Make answers of which about a share is right, the more sure the more often."""
    draw = np.random.default_rng(len(part))
    number, num_classes = plan.num_photos, len(plan.classes)
    labels = np.arange(number) % num_classes
    probs = draw.dirichlet(np.full(num_classes, 0.4), size=number).astype(np.float32)
    best = probs.argmax(axis=1)
    wanted = np.where(draw.random(number) < plan.accuracy, labels, (labels + 1) % num_classes)
    rows = np.arange(number)
    probs[rows, best], probs[rows, wanted] = probs[rows, wanted], probs[rows, best]
    made_up = [f"{part}/{number // 1000}/photo {number}.jpg" for number in range(number)]
    given = [*names, *made_up[len(names) :]]
    looks = Looks(*np.random.default_rng(1).uniform(50, 200, (4, number)))
    classes = tuple(plan.classes)
    return Outputs(tuple(given), labels.astype(np.int64), probs, classes, looks=looks)


def make_bundle(classes: Sequence[str], preprocessing: Preprocessing | None = None) -> Bundle:
    """Make a model that looks for one colour a class: red, green, blue, and red again."""
    preprocessing = preprocessing or Preprocessing(input_size=(3, 64, 64), crop_pct=1.0)
    network = Colours(len(classes), preprocessing.input_size)
    return Bundle(network, tuple(classes), preprocessing, {})  # type: ignore[arg-type]


class Colours(nn.Module):
    """What speaks for a class is its colour; a feature map has a place for each 8 by 8 pixels."""

    def __init__(self, num_classes: int, input_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.input_size = input_size
        self.map = nn.Conv2d(3, 3, kernel_size=8, stride=8, bias=False)
        self.head = nn.Linear(3, num_classes)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 8, 8) / 64)
            self.head.weight.copy_(torch.eye(3)[torch.arange(num_classes) % 3])
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.map(images).mean((2, 3)))


def write_photos(data: Path, names: Sequence[str], *, side_px: int = 64) -> None:
    """Write small photos of one colour each."""
    draw = np.random.default_rng(0)
    for name in names:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side_px, side_px), tuple(draw.integers(0, 255, 3).tolist())).save(path)


def _header(folder: Path, plan: Plan) -> MetricsHeader:
    """Say what a run would say of itself."""
    return MetricsHeader(
        run=folder.name,
        backbone="test_resnet",
        classes=tuple(plan.classes),
        selected_by="val_macro_f1",
        total_seconds=90.0,
        data_seconds=2.0,
        stage_seconds={"head": 8.0, "full": 80.0},
        peak_memory_mib=700,
        probe=ProbeFigures(plan.probe, 8.0),
        leaks={"val": Leaks(0, 0), "test": Leaks(plan.num_leaked, 0)},
    )


def _write_log(folder: RunFolder, plan: Plan) -> None:
    """Write what would have happened."""
    log = RunLog()
    log.open(folder)
    counts = {
        "train": dict.fromkeys(plan.classes, plan.num_train),
        "val": dict.fromkeys(plan.classes, plan.num_photos // len(plan.classes)),
    }
    log(DataFound(tuple(plan.classes), counts, (LeftOut("train/broken.jpg", "truncated"),)))
    log(Warned("1 file could not be read"))
    log(EpochEnded("head", 1, 0, float("nan"), 0.9, plan.probe, plan.probe, 0.0, 40.0, 8.0, True))
    for epoch in range(1, plan.epochs + 1):
        val_loss = 0.8 + 0.3 * (epoch - 1) if plan.is_overfitted else 0.8 / (1 + 0.1 * epoch)
        is_best = epoch == 1 if plan.is_overfitted else True
        score = plan.accuracy - 0.02 * (plan.epochs - epoch)
        losses = (0.8 / epoch, val_loss)
        log(EpochEnded("full", epoch, 9 * epoch, *losses, score, score, 1e-4, 12.0, 20.0, is_best))
    log(StageEnded("head", 8.0, "strength C=0.1"))
    log(StageEnded("full", 80.0))
