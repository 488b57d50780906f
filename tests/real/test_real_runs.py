"""Real photos and real pretrained weights: accuracy floors, timm alone, broken and turned files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune import load
from finetune.model.backbone import create_backbone
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments

pytestmark = pytest.mark.real

BACKBONE = "weights/mobilenetv2_100.in1k"


@pytest.fixture(scope="module")
def textures(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The probe on ten textures: the cheapest honest model."""
    recipe = with_arguments(
        load_recipe("probe"),
        backbone=f"local-dir:{assets / BACKBONE}",
        data=assets / "datasets" / "textures",
        device="cpu",
    )
    return run(recipe, out=tmp_path_factory.mktemp("real") / "textures")


def test_probe_reaches_its_floor_on_textures(textures: Run) -> None:
    figures = textures.results["val"].figures
    assert figures.num_samples == 80
    assert figures.accuracy >= 0.65  # 0.725 when written; chance is 0.1


def test_leaky_set_is_named_and_counted(assets: Path, tmp_path: Path) -> None:
    recipe = with_arguments(
        load_recipe("probe"),
        backbone=f"local-dir:{assets / BACKBONE}",
        data=assets / "datasets" / "food-leaky",
        device="cpu",
    )
    done = run(recipe, out=tmp_path / "run")
    assert any("copies of training images" in warning for warning in done.index.warnings)
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert metrics["splits"]["test"]["num_leaked"] >= 10


def test_frozen_tensors_are_bit_identical_after_a_probe(textures: Run, assets: Path) -> None:
    before = create_backbone(f"local-dir:{assets / BACKBONE}").state_dict()
    after = textures.bundle.network.backbone.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


TIMM_ALONE = """
import sys
import torch
library = torch.library.Library("torchvision", "DEF")
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    for op in ("nms", "qnms"):
        library.define(op + "(Tensor a, Tensor b, float c) -> Tensor")
import timm
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
torch.save(model(torch.load(sys.argv[2])), sys.argv[3])
print("|".join(model.pretrained_cfg["label_names"]), "finetune" in sys.modules)
"""


def test_timm_alone_gives_the_same_logits_and_names(textures: Run, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 224, 224)
    torch.save(images, tmp_path / "in.pt")
    arguments = [textures.folder / "model", tmp_path / "in.pt", tmp_path / "out.pt"]
    done = subprocess.run(
        [sys.executable, "-c", TIMM_ALONE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["|".join(textures.bundle.classes), "False"]
    with torch.inference_mode():
        ours = textures.bundle.network.cpu()(images)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), ours, atol=1e-5, rtol=1e-5)


def test_every_file_of_the_messy_folder_gets_a_row(
    textures: Run, assets: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "finetune", "predict", str(textures.folder)]
    command += [str(assets / "messy"), "--out", str(tmp_path / "rows.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as stream:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(stream)}
    files = [path.name for path in (assets / "messy").iterdir() if not path.name.startswith(".")]
    assert sorted(rows) == sorted(files)
    listing = json.loads((assets / "messy" / "LISTING.json").read_text())["files"]
    broken = {item["file"] for item in listing if not item["pil_decodes"]}
    named = {name for name, row in rows.items() if row["error"]}
    assert named == {*(broken & set(files)), "LISTING.json"}
    assert all(bool(row["predicted"]) != bool(row["error"]) for row in rows.values())


def test_turned_copies_get_the_same_prediction(textures: Run, assets: Path) -> None:
    photos = [assets / "messy" / f"exif_Landscape_{number}.jpg" for number in range(1, 9)]
    classifier = load(textures.folder, device="cpu")
    probs = classifier.predict_proba(photos)
    assert set(classifier.predict(photos)) == {classifier.classes_[probs[0].argmax()]}
    # the copies are JPEGs of their own, some four grey levels apart: the same picture within that
    assert abs(probs - probs[0]).max() < 0.25
