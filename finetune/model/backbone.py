"""The door to timm's models: names, sources, pretrained weights, and what can go wrong with them.

No other file imports `timm.models`. Weights come from, in this order: a file given, the local
folder, the Hugging Face cache, the hub. Where none is within reach the error names the model, what
was tried and the ways out, within seconds: whether the hub answers is asked once, before timm does.
Importing this file makes a later plain `import timm` work beside a broken torchvision; that is the
one effect an import of this package has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError

from finetune.compiler import compiler_deferred
from finetune.errors import BackboneError, join_names, nearest
from finetune.torchvision_ops import register_missing_ops

register_missing_ops()

with compiler_deferred():
    import timm
    from timm.data import resolve_model_data_config
    from timm.layers import get_notrace_functions, get_notrace_modules
    from timm.models import (
        get_arch_pretrained_cfgs,
        is_model,
        list_models,
        list_pretrained,
        load_state_dict,
        model_entrypoint,
        parse_model_name,
    )
    from timm.models._hub import save_config_for_hf
    from timm.models._manipulate import group_with_matcher

from finetune.model.hub import within_reach  # noqa: E402
from finetune.model.state import fit_state  # noqa: E402
from finetune.runtime.paths import absolute_path  # noqa: E402

# What timm, torch and safetensors were seen to raise where a model cannot be made.
BUILD_FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(NotImplementedError, OSError, RuntimeError, TypeError, ValueError, SafetensorError),
)

_NO_NAME = "?"  # of a parameter that no pattern names
_FACE = ("forward_features", "forward_head", "num_classes", "num_features")  # of every timm model

# A timm model: an nn.Module with `forward_features`, `forward_head`, `get_classifier`,
# `reset_classifier` and `pretrained_cfg`, for which timm has no common type.
TimmModel: TypeAlias = Any

__all__ = [
    "BUILD_FAILURES",
    "TimmModel",
    "build_on_meta",
    "canonical_name",
    "create_backbone",
    "data_config",
    "group_names",
    "list_architectures",
    "pretrained_configs",
    "rebuild_backbone",
    "save_config",
    "untraceable_parts",
    "why_not_loadable",
]


def create_backbone(
    name: str,
    *,
    pretrained: bool = True,
    weights: str | Path | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> TimmModel:
    """Create a timm model with its own classifier, pretrained unless asked otherwise.

    Args:
        name: What `timm.create_model` takes: a name, `name.tag`, `hf-hub:…`, `local-dir:…`.
        pretrained: Load pretrained weights.
        weights: A safetensors file or a state dict, used instead of the source's own weights.
        drop_rate: Dropout before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth, in [0, 1); 0 leaves the architecture's default.

    Raises:
        BackboneError: Unknown name, no weights within reach, or weights that do not fit.
    """
    _check_name(name)
    from_source = pretrained and weights is None
    given = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    arguments: dict[str, Any] = {key: value for key, value in given.items() if value}
    with within_reach(name, _pretrained_source(name) if from_source else _config_source(name)):
        model = _create(name, pretrained=from_source, arguments=arguments)
    _complete(model, name)
    if weights is not None:
        _load_file(model, Path(weights), name)
    return model


def _complete(model: TimmModel, name: str) -> None:
    """See to it that a model has what timm's have: one that a person registered may lack it.

    Raises:
        BackboneError: It lacks what nobody can fill in; the sentence names it.
    """
    if type(model).__module__.startswith("timm."):
        return
    missing = [one for one in _FACE if not hasattr(model, one)]
    if missing:
        raise BackboneError(
            f"{name} is no model as timm has them: it lacks {join_names(missing)}",
            hint="build it by timm.models.build_model_with_cfg",
        )
    known = dict(getattr(model, "pretrained_cfg", None) or {})
    given = {key: value for key, value in known.items() if value is not None}
    model.pretrained_cfg = model.default_cfg = {**_least_config(name), **given}


def _least_config(name: str) -> dict[str, Any]:
    """Give what the configuration of a model must say: a saved one stands in its folder."""
    source, _, place = name.partition(":")
    saved: dict[str, Any] = {}
    if source == "local-dir":
        saved = json.loads((Path(place) / "config.json").read_text(encoding="utf-8"))
    size = saved.get("pretrained_cfg", {}).get("input_size", (3, 224, 224))
    architecture = saved.get("architecture", name.partition(".")[0])
    return {"architecture": architecture, "input_size": tuple(size)}


def _create(name: str, *, pretrained: bool, arguments: dict[str, Any]) -> TimmModel:
    """Let timm create a model; what it raises becomes one sentence."""
    try:
        model: TimmModel = timm.create_model(name, pretrained=pretrained, **arguments)
    except BUILD_FAILURES as error:
        return _recover(error, name, arguments)
    return model


def rebuild_backbone(
    model: TimmModel, name: str, *, pretrained: bool, arguments: dict[str, Any]
) -> TimmModel:
    """Build the architecture of a model anew with other arguments, and carry its weights over.

    timm does the carrying: it resamples position embeddings and adapts the first convolution.

    Args:
        model: From `create_backbone`.
        name: What it was created from.
        pretrained: Carry the weights over; otherwise the new ones are random.
        arguments: Of the architecture: `img_size`, `in_chans`, `drop_rate`, `drop_path_rate`.

    Raises:
        Exception: One of `BUILD_FAILURES`, as timm raises it.
    """
    state = {"state_dict": model.state_dict(), "source": "", "custom_load": False}
    overlay = {**state, "num_classes": model.num_classes} if pretrained else None
    with within_reach(name, _config_source(name)):
        rebuilt: TimmModel = timm.create_model(
            name,
            pretrained=pretrained,
            pretrained_cfg_overlay=overlay,
            num_classes=model.num_classes,
            **arguments,
        )
    rebuilt.pretrained_cfg = rebuilt.default_cfg = model.pretrained_cfg
    return rebuilt


def canonical_name(name: str) -> str:
    """Make the folder of a `local-dir:` absolute, so that a recipe repeats from anywhere."""
    source, _, place = name.partition(":")
    if source != "local-dir" or not place:
        return name
    return f"local-dir:{absolute_path(place).resolve()}"


def data_config(model: TimmModel, *, is_test: bool) -> dict[str, Any]:
    """Give timm's data configuration of a model's weights, for evaluation or for training."""
    config: dict[str, Any] = resolve_model_data_config(model, use_test_size=is_test)
    return config


def group_names(model: TimmModel, *, coarse: bool) -> dict[str, int] | None:
    """Map each parameter name to timm's group, 0 at the input; None where timm has no groups.

    What timm's patterns do not name, it puts together with the classifier. Here it counts to the
    group before: the last normalisation of Swin or ConvNeXt alone would pass for a stage.

    Args:
        model: A timm model.
        coarse: Stages of a convolutional net rather than its blocks.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return None
    try:
        groups = matcher(coarse=coarse)
    except (AssertionError, NotImplementedError):  # four RDNets refuse coarse groups
        groups = matcher(coarse=not coarse)
    objects = [*model.named_parameters(), (_NO_NAME, None)]
    mapping: dict[str, int] = group_with_matcher(objects, groups, reverse=True)
    rest = mapping.pop(_NO_NAME, None)
    return {name: group - (group == rest and group > 0) for name, group in mapping.items()}


def save_config(
    model: TimmModel, file: Path, *, class_names: tuple[str, ...] | None, config: dict[str, Any]
) -> None:
    """Write timm's `config.json`: architecture, arguments, label names, preprocessing.

    Args:
        model: A timm model.
        file: Where; its folder exists.
        class_names: K names in the order of the logits, or None for a model without classifier.
        config: timm data configuration to save as the truth of preprocessing.
    """
    model_config = {"label_names": list(class_names)} if class_names else None
    save_config_for_hf(
        model,
        str(file),
        model_config=model_config,
        model_args=_own_arguments(model),
        data_config=config,
    )


def _own_arguments(model: TimmModel) -> dict[str, Any]:
    """Name the arguments that timm would otherwise choose by whether weights are loaded.

    fbnetc_100 alone has another epsilon in its batch normalisations when it is built with
    pretrained weights than without, so that what was trained one way would be rebuilt the other.
    """
    if model.pretrained_cfg.get("architecture") != "fbnetc_100":
        return {}
    return {"bn_eps": model.bn1.eps}


def untraceable_parts() -> tuple[tuple[type, ...], tuple[Callable[..., Any], ...]]:
    """Give the module classes and the functions that timm says torch.fx must take as a whole."""
    return tuple(get_notrace_modules()), tuple(get_notrace_functions())


def why_not_loadable(model: TimmModel) -> str | None:
    """Say why timm alone cannot rebuild this architecture; None where it can."""
    architecture = model.pretrained_cfg.get("architecture", "")
    home = model_entrypoint(architecture).__module__ if is_model(architecture) else None
    if home is None:
        return f"architecture {architecture!r} is not registered with timm"
    if not home.startswith("timm."):
        return f"architecture {architecture!r} is registered by module {home}, not by timm"
    return None


def list_architectures() -> tuple[str, ...]:
    """Name every architecture that timm knows, in its order."""
    return tuple(list_models())


def build_on_meta(name: str, **arguments: Any) -> TimmModel:
    """Build an architecture without memory for its tensors; for counting, not for computing."""
    import torch

    with torch.device("meta"):
        model: TimmModel = timm.create_model(name, pretrained=False, **arguments)
    return model


def pretrained_configs(architecture: str) -> dict[str, dict[str, Any]]:
    """Give timm's configuration of each of an architecture's weights by tag, the default first."""
    configs = get_arch_pretrained_cfgs(architecture)
    return {
        name.partition(".")[2]: config.to_dict()
        for name, config in configs.items()
        if config.has_weights
    }


def _check_name(name: str) -> None:
    """Raise where a name stands for nothing; propose the nearest one."""
    try:
        source, place = parse_model_name(name)
    except ValueError as error:
        raise BackboneError(str(error)) from error
    if source == "local-dir":
        if not (Path(place) / "config.json").is_file():
            raise BackboneError(
                f"{place} is no timm folder: it has no config.json",
                hint="name a folder with config.json and model.safetensors",
            )
        return
    architecture = place.partition(".")[0]
    if source is not None or is_model(architecture):
        _check_tag(source, architecture, place)
        return
    near = nearest(architecture, list_models())
    tail = f"; did you mean {near}?" if near else ""
    raise BackboneError(
        f"timm {timm.__version__} knows no architecture {architecture!r}{tail}",
        hint=f"finetune backbones '*{architecture[:6]}*'",
    )


def _check_tag(source: str | None, architecture: str, place: str) -> None:
    """Raise where a plain name carries a tag of weights that do not exist."""
    if source is not None or "." not in place:
        return
    known = [name for name in list_pretrained(f"{architecture}.*")]
    if place not in known:
        raise BackboneError(
            f"there are no weights {place!r}; {architecture} has {join_names(known) or 'none'}",
            hint=f"--backbone {nearest(place, known) or architecture}",
        )


def _pretrained_source(name: str) -> dict[str, Any]:
    """Say where timm would take the weights of a name from; empty for a local folder."""
    source, place = parse_model_name(name)
    if source == "local-dir":
        return {}
    if source == "hf-hub":
        return {"hf_hub_id": place}
    config = timm.get_pretrained_cfg(place, allow_unregistered=True)
    return {} if config is None else config.to_dict()


def _config_source(name: str) -> dict[str, Any]:
    """Say where timm takes the configuration of a name from, without weights; empty for its own."""
    source, place = parse_model_name(name)
    return {"hf_hub_id": place, "hf_hub_filename": "config.json"} if source == "hf-hub" else {}


def _recover(error: Exception, name: str, arguments: dict[str, Any]) -> TimmModel:
    """Load a local folder whose weights have another classifier, or explain what failed."""
    source, place = parse_model_name(name)
    message = str(error)
    if arguments and isinstance(error, TypeError):
        raise BackboneError(
            f"{name} does not take {join_names(list(arguments))}: {_first_line(error)}",
            hint=f"leave {' and '.join(f'model.{key}' for key in arguments)} out",
        ) from error
    if source == "local-dir" and "state_dict" in message:
        model: TimmModel = timm.create_model(name, pretrained=False, **arguments)
        _load_file(model, _weights_in(Path(place)), name)
        return model
    raise BackboneError(
        f"{name} cannot be loaded: {_first_line(error)}",
        hint="finetune run --no-pretrained starts from random weights",
    ) from error


def _weights_in(folder: Path) -> Path:
    """Find the weights file of a timm folder."""
    for file in ("model.safetensors", "pytorch_model.bin"):
        if (folder / file).is_file():
            return folder / file
    raise BackboneError(f"{folder} has no model.safetensors", hint="--no-pretrained, or --weights")


def _load_file(model: TimmModel, file: Path, name: str) -> None:
    """Load a weights file into a model; a classifier of another shape stays out.

    Raises:
        BackboneError: The file is missing or unreadable, or other tensors differ; names them.
    """
    if not file.is_file():
        raise BackboneError(f"there is no weights file {file}", hint="check --weights")
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        fitting, differing = fit_state(model, state)
    except (*BUILD_FAILURES, EOFError) as error:
        raise BackboneError(
            f"{file} holds no weights that can be read safely: {_first_line(error)}",
            hint="give a .safetensors file, or a state dict without code",
        ) from error
    if differing:
        num_tensors = len(model.state_dict())
        raise BackboneError(
            f"{file} does not fit {name}: {len(differing)} of {num_tensors} tensors are missing, "
            f"unknown or of another shape: {join_names(differing)}",
            hint="name the architecture that these weights were trained with: --backbone",
        )
    model.load_state_dict(fitting, strict=False)


def _first_line(error: Exception) -> str:
    """The first line of a foreign message."""
    return (str(error) or type(error).__name__).splitlines()[0]
