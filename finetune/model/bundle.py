"""What is saved: a plain timm model, and beside it `finetune.json` with what timm has no field for.

    model/config.json         timm's: architecture, arguments, label names, preprocessing
    model/model.safetensors   the weights
    model/finetune.json       ours: classes, rules, versions, fingerprint of the data, the recipe,
                              temperature and thresholds
    model/novelty.safetensors where it was fitted: what tells photos unlike those of training

`timm.create_model("local-dir:RUN/model", pretrained=True)` gives the same logits without this
package. Where timm alone cannot rebuild the network, `finetune.json` says so in `timm_loadable`,
with the reason, and is what rebuilds it. For shared fields `config.json` is the truth; where the
two disagree loading is refused. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from finetune.components.heads import Head, LinearHead
from finetune.components.pixels import MAX_PIXELS
from finetune.components.preprocess import Preprocessing
from finetune.errors import BackboneError, BundleError, join_names
from finetune.model.backbone import create_backbone, save_config, why_not_loadable
from finetune.model.calibration import NOVELTY_FILE, Calibration
from finetune.model.network import Network, build_network, has_classifier, is_timms_own
from finetune.runtime.files import (
    cannot_write,
    make_folder,
    temporary_beside,
    write_text,
    write_with,
)
from finetune.runtime.paths import home_path
from finetune.runtime.seeds import own_randomness
from finetune.runtime.tensors import save_tensors
from finetune.version import __version__

__all__ = [
    "MODEL_FILES",
    "Bundle",
    "add_calibration",
    "find_model_folder",
    "load_bundle",
    "save_bundle",
]

SCHEMA_VERSION = 1
# In this order, so that the last one is there only where all are.
MODEL_FILES = ("config.json", "model.safetensors", NOVELTY_FILE, "finetune.json")
_SHARED = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A saved model, ready to predict.

    Attributes:
        network: In eval mode, fp32, on the CPU.
        classes: K names in the order of the logits.
        preprocessing: Geometry and normalisation of its input.
        document: The content of `finetune.json`.
        folder: Where it stands; None before it was saved.
        calibration: Temperature, thresholds and reference; empty where nothing was fitted.
    """

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    document: Mapping[str, Any]
    folder: Path | None = None
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def max_pixels(self) -> int:
        """The most pixels of a photo that the run took: what it left out is left out ever after."""
        recipe = self.document.get("recipe")
        section = recipe.get("data") if isinstance(recipe, Mapping) else None
        limit = section.get("max_pixels") if isinstance(section, Mapping) else None
        return limit if isinstance(limit, int) and 0 < limit <= MAX_PIXELS else MAX_PIXELS


def save_bundle(bundle: Bundle, folder: Path, *, head: Head | None = None) -> Bundle:
    """Save a model, whole or not at all: into a temporary folder, then renamed.

    Args:
        bundle: What to save; its `document` is completed with what this file knows.
        folder: Where; an existing model there is replaced, and other files there are left alone.
        head: The head section; None stands for timm's own classifier.

    Returns:
        The bundle with its folder and the document as written.

    Raises:
        FinetuneError: The folder cannot be written.
    """
    head = head or LinearHead()
    make_folder(folder.parent)
    temporary = temporary_beside(folder.absolute())
    make_folder(temporary)
    try:
        document = _write(bundle, temporary, head)
        _move(temporary, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(bundle, document=document, folder=folder)


def add_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """Complete a saved model by what was fitted on its answers; its weights are not written again.

    Raises:
        FinetuneError: The folder cannot be written.
        ValueError: The model was not saved.
    """
    if bundle.folder is None:
        raise ValueError("a model is saved before its calibration")
    document = {**bundle.document, **calibration.to_document()}
    if calibration.novelty is not None:  # first: the document names what is there
        write_with(bundle.folder / NOVELTY_FILE, calibration.novelty.save)
    write_text(bundle.folder / "finetune.json", _text(document))
    return replace(bundle, document=document, calibration=calibration)


def find_model_folder(path: str | Path) -> Path:
    """Find the model of a run folder, or of the folder of a model itself.

    Raises:
        BundleError: There is none.
    """
    path = home_path(path)
    for folder in (path / "model", path):
        if os.path.isfile(folder / "finetune.json"):
            return folder
    is_there = os.path.exists(path)
    what = "holds no finetune.json, nor does its model/" if is_there else "does not exist"
    raise BundleError(
        f"{path} is no saved model: it {what}", hint="name a run folder, or its model/ folder"
    )


def load_bundle(path: str | Path, *, head: Head | None = None) -> Bundle:
    """Load a saved model from a run folder or from a model folder.

    Args:
        path: A run folder, or the folder of a model.
        head: The head where it was a Python object, which no file can name; else None.

    Raises:
        BundleError: Files are missing or damaged, of a later format, or contradict each other.
    """
    folder = find_model_folder(path)
    document = _read_json(folder / "finetune.json")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder}/finetune.json has format {version!r}; finetune {__version__} reads "
            f"{SCHEMA_VERSION}",
            hint="install the version of finetune that wrote it",
        )
    saved = document.get("head")
    if head is None and isinstance(saved, Mapping) and saved.get("kind") == "python":
        raise BundleError(
            f"the head of {folder} is a Python object, {saved.get('given')}, which no file holds",
            hint="from finetune import load; load(path, head=THE_OBJECT)",
        )
    try:
        classes = tuple(str(name) for name in document["classes"])
        preprocessing = Preprocessing.model_validate(document["preprocessing"])
        head = head or TypeAdapter(Head).validate_python(document["head"])
        calibration = Calibration.from_document(document, folder)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{folder / NOVELTY_FILE} cannot be read: {_first_line(error)}"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}/finetune.json is damaged: {_first_line(error)}") from error
    _check_agreement(folder, classes, preprocessing)
    with own_randomness():
        network = _rebuild(folder, head, classes, preprocessing)
    return Bundle(network.eval(), classes, preprocessing, document, folder, calibration)


def _write(bundle: Bundle, folder: Path, head: Head) -> dict[str, Any]:
    """Write the three files of a bundle; give the document."""
    network = bundle.network
    reason = why_not_loadable(network.backbone)
    if network.head is not None:
        reason = _why_head_is_ours(network, head)
    config = bundle.preprocessing.to_data_config()
    class_names = bundle.classes if network.head is None else None
    save_config(network.backbone, folder / "config.json", class_names=class_names, config=config)
    whole = network.backbone if network.head is None else network
    save_tensors(_state(whole), folder / "model.safetensors")
    document = {
        "schema_version": SCHEMA_VERSION,
        "classes": list(bundle.classes),
        "preprocessing": bundle.preprocessing.model_dump(mode="json"),
        "head": head.model_dump(mode="json"),
        "timm_loadable": reason is None,
        "timm_not_loadable_reason": reason,
        **bundle.document,
        **bundle.calibration.to_document(),
    }
    if bundle.calibration.novelty is not None:
        bundle.calibration.novelty.save(folder / NOVELTY_FILE)
    (folder / "finetune.json").write_text(_text(document), encoding="utf-8")
    return document


def _move(written: Path, folder: Path) -> None:
    """Bring a model that is written to its place: a new folder at once, else file by file."""
    if not folder.exists():
        written.rename(folder)
        return
    document = folder / MODEL_FILES[-1]
    before = document.read_bytes() if document.is_file() else None
    document.unlink(missing_ok=True)  # without it no mixture of two models is taken for one
    try:
        os.replace(written / MODEL_FILES[0], folder / MODEL_FILES[0])
    except OSError:
        if before is not None:  # nothing was replaced
            document.write_bytes(before)
        raise
    for name in MODEL_FILES[1:]:
        if (written / name).exists():
            os.replace(written / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _text(document: Mapping[str, Any]) -> str:
    """Write `finetune.json`."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _why_head_is_ours(network: Network, head: Head) -> str:
    """Say why timm alone cannot rebuild a head."""
    if not has_classifier(network.backbone):
        return "the architecture is an encoder, to which timm adds no classifier"
    if network.depths > 1:
        return f"the head takes features of {network.depths} depths, which timm has no field for"
    return f"the head is {head.kind}, which timm has no field for"


def _state(module: nn.Module) -> dict[str, Any]:
    """Give the tensors of a network as safetensors wants them: contiguous and apart, on the CPU.

    The network stays where it is: whoever predicts with it has it on a device.

    CoaT's blocks share layers, whose tensors stand in its state under several names; timm loads
    each name, so each is written.
    """
    return {
        name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }


def _rebuild(
    folder: Path, head: Head, classes: tuple[str, ...], preprocessing: Preprocessing
) -> Network:
    """Build the network of a folder and load its weights, every tensor or none."""
    try:
        backbone = create_backbone(f"local-dir:{folder}", pretrained=False)
    except BackboneError as error:
        raise BundleError(
            f"{folder} cannot be rebuilt: {error.message}",
            hint="import the module that registers this architecture with timm first",
        ) from error
    input_size = preprocessing.input_size
    if is_timms_own(head, backbone):
        if backbone.num_classes != len(classes):  # built by a person's function, which may not ask
            backbone.reset_classifier(len(classes))
        _load_exactly(backbone, folder / "model.safetensors")
        return Network(backbone, num_classes=len(classes), input_size=input_size)
    network = build_network(backbone, head, num_classes=len(classes), input_size=input_size)
    _load_exactly(network, folder / "model.safetensors")
    return network


def _load_exactly(module: nn.Module, file: Path) -> None:
    """Load a weights file whose tensors are exactly those of a module; name those that differ."""
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{file} cannot be read: {_first_line(error)}") from error
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    differing = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if differing:
        raise BundleError(
            f"{file} does not fit its config.json; these tensors differ: {join_names(differing)}",
            hint="restore the files as they were saved",
        )
    module.load_state_dict(state)


def _check_agreement(folder: Path, classes: tuple[str, ...], preprocessing: Preprocessing) -> None:
    """Refuse a folder whose two documents contradict each other."""
    config = _read_json(folder / "config.json")
    theirs, names = config.get("pretrained_cfg", {}), config.get("label_names")
    if not isinstance(theirs, dict) or not isinstance(names, list | None):
        raise BundleError(
            f"{folder}/config.json is damaged", hint="restore the files as they were saved"
        )
    ours = preprocessing.to_data_config()
    for name in _SHARED:
        if name in theirs and _plain(theirs[name]) != _plain(ours[name]):
            raise BundleError(
                f"{folder}: config.json has {name} {theirs[name]}, finetune.json {ours[name]}",
                hint="restore the files as they were saved",
            )
    if names is not None and tuple(names) != classes:
        raise BundleError(
            f"{folder}: config.json and finetune.json name the classes differently",
            hint="restore the files as they were saved",
        )


def _plain(value: Any) -> Any:
    """Bring lists and tuples to one form for comparison."""
    return list(value) if isinstance(value, tuple) else value


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} is no JSON object")
    return document


def _first_line(error: Exception) -> str:
    """The first line of a foreign message."""
    return (str(error) or type(error).__name__).splitlines()[0]
