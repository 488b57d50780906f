"""What is saved loads again, with and without this package; contradictions are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from finetune.components.heads import Head, LinearHead, MlpHead
from finetune.errors import BundleError, FinetuneError
from finetune.model.bundle import Bundle, load_bundle, save_bundle
from finetune.model.input import preprocessing_of
from finetune.model.network import Network
from tests.unit.model.conftest import MakeNetwork

CLASSES = ("ant", "bee", "çedilla")


def save(network: Network, folder: Path, head: object = None) -> Bundle:
    bundle = Bundle(network.eval(), CLASSES, preprocessing_of(network.backbone), {"recipe": {}})
    return save_bundle(bundle, folder, head=head or LinearHead())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_saved_network_gives_the_same_logits(
    make_network: MakeNetwork, tmp_path: Path, name: str
) -> None:
    network = make_network(name)
    save(network, tmp_path / "model")
    images = torch.randn(2, 3, 160, 160)
    loaded = load_bundle(tmp_path / "model")
    torch.testing.assert_close(loaded.network(images), network(images), atol=1e-5, rtol=0)
    assert loaded.classes == CLASSES
    assert loaded.document["timm_loadable"] is True


@pytest.mark.slow
def test_timm_alone_gives_the_same_logits_and_class_names(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    network = make_network("test_resnet")
    save(network, tmp_path / "model")
    images = torch.randn(2, 3, 160, 160)
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import sys, torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError:\n"
        "    [sys.modules.pop(n) for n in list(sys.modules) if n.startswith('torchvision')]\n"
        "    for op in ('nms', 'qnms'):\n"
        "        library.define(op + '(Tensor a, Tensor b, float c) -> Tensor')\n"
        "import timm\n"
        f"model = timm.create_model('local-dir:{tmp_path / 'model'}', pretrained=True).eval()\n"
        f"torch.save(model(torch.load(r'{tmp_path / 'images.pt'}')), r'{tmp_path / 'out.pt'}')\n"
        "print('|'.join(model.pretrained_cfg['label_names']))\n"
        "assert 'finetune' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "|".join(CLASSES)
    logits = torch.load(tmp_path / "out.pt")
    torch.testing.assert_close(logits, network(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (MlpHead(hidden=8), "the head is mlp"),
        (LinearHead(depths=2), "the head takes features of 2 depths"),
    ],
)
def test_head_of_ours_round_trips_and_says_so(
    make_network: MakeNetwork, tmp_path: Path, head: Head, reason: str
) -> None:
    network = make_network("test_resnet", head=head).eval()
    save(network, tmp_path / "model", head)
    images = torch.randn(2, 3, 160, 160)
    loaded = load_bundle(tmp_path / "model")
    torch.testing.assert_close(loaded.network(images), network(images), atol=1e-5, rtol=0)
    assert loaded.document["timm_loadable"] is False
    assert reason in loaded.document["timm_not_loadable_reason"]


USER_ARCHITECTURE = """
import sys
from pathlib import Path

import torch

from finetune.components.heads import LinearHead
from finetune.model.backbone import create_backbone
from finetune.model.input import preprocessing_of
from finetune.model.bundle import Bundle, load_bundle, save_bundle
from finetune.model.network import build_network
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, ResNet


@register_model
def my_small_net(pretrained=False, **kwargs):
    arguments = {"block": BasicBlock, "layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
    return build_model_with_cfg(ResNet, "my_small_net", pretrained, **arguments, **kwargs)


backbone = create_backbone("my_small_net", pretrained=False)
network = build_network(backbone, LinearHead(), num_classes=2, input_size=(3, 224, 224)).eval()
bundle = Bundle(network, ("a", "b"), preprocessing_of(backbone), {})
document = save_bundle(bundle, Path(sys.argv[1])).document
images = torch.randn(1, 3, 224, 224)
difference = (load_bundle(sys.argv[1]).network(images) - network(images)).abs().max()
print(document["timm_loadable"], document["timm_not_loadable_reason"], float(difference) < 1e-5)
"""


@pytest.mark.slow
def test_architecture_registered_by_the_user_round_trips_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USER_ARCHITECTURE, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = "architecture 'my_small_net' is registered by module __main__, not by timm"
    assert done.stdout.strip() == f"False {expected} True"


def test_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no saved model") as caught:
        load_bundle(tmp_path)
    assert caught.value.hint == "name a run folder, or its model/ folder"
    assert caught.value.exit_code == 6


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_later_format_is_refused(make_network: MakeNetwork, tmp_path: Path) -> None:
    save(make_network(), tmp_path / "model")
    change(tmp_path / "model" / "finetune.json", schema_version=2)
    with pytest.raises(BundleError, match=r"has format 2; finetune .* reads 1"):
        load_bundle(tmp_path / "model")


def test_class_names_that_disagree_are_refused(make_network: MakeNetwork, tmp_path: Path) -> None:
    save(make_network(), tmp_path / "model")
    change(tmp_path / "model" / "finetune.json", classes=["x", "y", "z"])
    with pytest.raises(BundleError, match="name the classes differently"):
        load_bundle(tmp_path / "model")


def test_preprocessing_that_disagrees_is_refused(make_network: MakeNetwork, tmp_path: Path) -> None:
    saved = save(make_network(), tmp_path / "model")
    changed = {**saved.document["preprocessing"], "crop_pct": 0.5}
    change(tmp_path / "model" / "finetune.json", preprocessing=changed)
    with pytest.raises(BundleError, match=r"config\.json has crop_pct"):
        load_bundle(tmp_path / "model")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\ud800"])
def test_damaged_document_is_one_sentence(
    make_network: MakeNetwork, tmp_path: Path, text: str
) -> None:
    save(make_network(), tmp_path / "model")
    (tmp_path / "model" / "finetune.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match=r"finetune\.json cannot be read"):
        load_bundle(tmp_path / "model")


@pytest.mark.parametrize(
    "values",
    [
        {"pretrained_cfg": 7},
        {"pretrained_cfg": None},
        {"pretrained_cfg": {"mean": ["\ud800"]}},
        {"label_names": 7},
        {"label_names": {"ants": 1}},
        {"global_pool": 0.5, "model_args": {"global_pool": 0.5}},
    ],
)
def test_a_damaged_config_is_one_sentence(
    make_network: MakeNetwork, tmp_path: Path, values: dict[str, Any]
) -> None:
    save(make_network(), tmp_path / "model")
    change(tmp_path / "model" / "config.json", **values)
    with pytest.raises(BundleError, match=r"config\.json|cannot be rebuilt"):
        load_bundle(tmp_path / "model")


def test_missing_weights_are_one_sentence(make_network: MakeNetwork, tmp_path: Path) -> None:
    save(make_network(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be read"):
        load_bundle(tmp_path / "model")


def test_weights_of_another_number_of_classes_are_refused(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    save(make_network(num_classes=3), tmp_path / "model")
    other = tmp_path / "other"
    network = make_network(num_classes=4)
    bundle = Bundle(
        network.eval(), (*CLASSES, "dog"), preprocessing_of(network.backbone), {"recipe": {}}
    )
    save_bundle(bundle, other)
    (other / "model.safetensors").replace(tmp_path / "model" / "model.safetensors")
    with pytest.raises(BundleError, match=r"these tensors differ: fc\.bias, fc\.weight"):
        load_bundle(tmp_path / "model")


def test_saving_leaves_the_network_where_it_is(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network("test_resnet").to(memory_format=torch.channels_last)
    save(network, tmp_path / "model")
    weight = next(value for value in network.parameters() if value.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("recipe", "limit"),
    [
        ({"data": {"max_pixels": 1000}}, 1000),
        ({"data": {"max_pixels": 10**12}}, 178_956_970),
        ({"data": None}, 178_956_970),
        (None, 178_956_970),
    ],
)
def test_photos_that_the_run_left_out_as_too_large_stay_so(
    make_network: MakeNetwork, recipe: object, limit: int
) -> None:
    network = make_network("test_resnet")
    bundle = Bundle(network, CLASSES, preprocessing_of(network.backbone), {"recipe": recipe})
    assert bundle.max_pixels == limit


def test_saving_again_replaces_the_model_and_nothing_else(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save(make_network(), folder)
    for name in ("README.md", "novelty.safetensors"):  # mine, and of the model that was there
        (folder / name).write_text("old")
    (folder / ".git").mkdir()
    network = make_network()
    save(network, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".git", "README.md", "config.json", "finetune.json", "model.safetensors",
    ]  # fmt: skip
    loaded = load_bundle(folder).network.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def test_a_model_can_be_saved_where_one_stands(
    make_network: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save(make_network(), Path())
    assert load_bundle(tmp_path / "here").classes == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_home_folder_is_known_by_its_sign(
    make_network: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_network(), tmp_path / "birds")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_bundle("~/birds").folder == tmp_path / "birds"


def test_a_disk_that_is_full_when_weights_are_written_is_called_so(
    make_network: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise SafetensorError(
            'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No '
            'space left on device" } (os error 28)'
        )

    monkeypatch.setattr("finetune.runtime.tensors.save_file", fill)
    with pytest.raises(FinetuneError, match="the disk is full") as caught:
        save(make_network(), tmp_path / "model")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["config.json", "model.safetensors"])
def test_of_a_save_that_fails_no_mixture_of_two_models_is_left(
    make_network: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder, replace = tmp_path / "model", os.replace
    save(make_network(), folder)

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == folder / failing:
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(FinetuneError, match=f"cannot write {folder}: Access is denied"):
        save(make_network(), folder)
    assert (folder / "finetune.json").is_file() == (failing == "config.json")
    if failing == "config.json":
        load_bundle(folder)
    monkeypatch.undo()
    save(make_network(), folder)
    load_bundle(folder)
