"""The door to timm: names, weights and the sentences where they fail."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import BackboneError
from finetune.model.backbone import create_backbone, why_not_loadable
from finetune.model.input import preprocessing_of


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(BackboneError, match="did you mean efficientnet_b0") as caught:
        create_backbone("eficientnet_b0")
    assert caught.value.hint == "finetune backbones '*eficie*'"
    assert caught.value.exit_code == 4


def test_unknown_tag_names_those_that_exist() -> None:
    with pytest.raises(BackboneError, match=r"resnet18 has resnet18\.a1_in1k") as caught:
        create_backbone("resnet18.b1_in1k")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--backbone resnet18.")


def test_weights_out_of_reach_name_the_model_what_was_tried_and_the_ways_out() -> None:
    with pytest.raises(BackboneError, match="no pretrained weights for resnet18") as caught:
        create_backbone("resnet18")
    assert "not in the Hugging Face cache" in caught.value.message
    for way in ("--weights FILE", "--backbone local-dir:FOLDER", "--no-pretrained"):
        assert way in str(caught.value.hint)


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"it has no config\.json"):
        create_backbone(f"local-dir:{tmp_path}")


def test_path_without_prefix_is_explained() -> None:
    with pytest.raises(BackboneError, match="local-dir:"):
        create_backbone("some/folder")


def save_weights(path: Path, **changes: torch.Tensor | None) -> Path:
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    for name, tensor in changes.items():
        state.pop(name.replace("__", "."))
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    save_file(state, path)
    return path


def test_weights_file_with_another_classifier_fits(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "w.safetensors")
    model = create_backbone("test_resnet", weights=file)
    loaded = load_file(file)
    assert torch.equal(model.state_dict()["conv1.0.weight"], loaded["conv1.0.weight"])
    assert model.get_classifier().out_features == 1000


def test_weights_file_with_a_missing_tensor_names_it(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "w.safetensors", layer1__0__conv1__weight=None)
    with pytest.raises(BackboneError, match=r"1 of \d+ tensors .*: layer1\.0\.conv1\.weight") as e:
        create_backbone("test_resnet", weights=file)
    assert "--backbone" in str(e.value.hint)


def test_weights_file_with_another_shape_names_the_tensor(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "w.safetensors", layer1__0__conv1__weight=torch.zeros(3))
    with pytest.raises(BackboneError, match=r"layer1\.0\.conv1\.weight"):
        create_backbone("test_resnet", weights=file)


def test_missing_weights_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"there is no weights file .*nothing\.safetensors"):
        create_backbone("test_resnet", weights=tmp_path / "nothing.safetensors")


def test_weights_file_of_rubbish_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"rubbish")
    with pytest.raises(BackboneError, match="holds no weights that can be read safely"):
        create_backbone("test_resnet", weights=tmp_path / "w.safetensors")


class Bomb:
    """An object that a pickle would build by running code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="holds no weights that can be read safely"):
        create_backbone("test_resnet", weights=tmp_path / "w.pth")


def test_state_dict_file_loads(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    model = create_backbone("test_resnet", weights=tmp_path / "w.pth")
    assert torch.equal(model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_local_folder_whose_tensors_differ_names_them(tmp_path: Path) -> None:
    from timm.models import save_for_hf

    model = timm.create_model("test_resnet", num_classes=5)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("layer1.0.conv1.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match=r"layer1\.0\.conv1\.weight"):
        create_backbone(f"local-dir:{tmp_path}")


def test_preprocessing_comes_from_the_weights(tmp_path: Path) -> None:
    from timm.models import save_for_hf

    model = timm.create_model("test_resnet", num_classes=5)
    config = {"mean": (0.1, 0.2, 0.3), "input_size": (3, 96, 96), "interpolation": "bilinear"}
    save_for_hf(model, str(tmp_path), safe_serialization=True, data_config=config)
    preprocessing = preprocessing_of(create_backbone(f"local-dir:{tmp_path}"))
    assert preprocessing.mean == (0.1, 0.2, 0.3)
    assert preprocessing.input_size == (3, 96, 96)
    assert preprocessing.interpolation == "bilinear"


def test_timm_architecture_is_loadable_by_timm_alone() -> None:
    assert why_not_loadable(timm.create_model("test_resnet")) is None


@pytest.mark.parametrize(
    "content", [torch.zeros(2), [1, 2], {"model": "resnet50"}, {"state_dict": None}, {1: 2}]
)
def test_a_file_of_something_else_is_one_sentence(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"w\.pth (holds no weights|does not fit)"):
        create_backbone("test_resnet", weights=tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["backbone.", "model.", "module."])
def test_a_backbone_within_something_larger_is_found(tmp_path: Path, prefix: str) -> None:
    state = create_backbone("test_resnet", pretrained=False).state_dict()
    wrapped = {f"{prefix}{name}": value + 1 for name, value in state.items()}
    torch.save(wrapped, tmp_path / "w.pth")
    loaded = create_backbone("test_resnet", weights=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[name], value + 1) for name, value in state.items())
