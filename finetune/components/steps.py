"""From names and arguments to albumentations' transforms, with all that is wrong with them.

The library itself is passed in by `augment.py`, which alone imports it. What may be named is what
it exports, less what a set of photos by class cannot use. An unknown argument is an error here;
albumentations only warns of it and takes the default.
"""

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.errors import Problem, nearest

if TYPE_CHECKING:
    from finetune.components.preprocess import InputSpec

__all__ = ["find_unfit", "make_steps", "refusals"]

_NORMALISES = "normalisation comes from the weights, on the device"
_NEEDS_MORE = "it needs masks, boxes or other images, which a set of photos by class does not have"
# What albumentations exports and a pipeline of photos cannot hold, with the reason.
_REFUSED = {
    **dict.fromkeys(("FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2"), _NORMALISES),
    **dict.fromkeys(
        (
            "AtLeastOneBBoxRandomCrop",
            "BBoxSafeRandomCrop",
            "ConstrainedCoarseDropout",
            "CropNonEmptyMaskIfExists",
            "FDA",
            "HistogramMatching",
            "MaskDropout",
            "Mosaic",
            "OverlayElements",
            "PixelDistributionAdaptation",
            "RandomCropNearBBox",
            "RandomSizedBBoxSafeCrop",
            "TextImage",
        ),
        _NEEDS_MORE,
    ),
    **dict.fromkeys(("Compose", "ReplayCompose"), "the list is one already; nest with Sequential"),
    "ToRGB": "images are RGB already",
    "Lambda": "a recipe names no code; pass a function from Python as augment=",
}
# Bases of other classes, and one for volumes whose name does not end in 3D.
_NOT_OF_IMAGES = frozenset(
    ("BaseCompose", "BasicTransform", "CubicSymmetry", "DualTransform", "ImageOnlyTransform")
)


def make_steps(
    steps: Sequence[Mapping[str, Any]], path: str, problems: list[Problem], *, library: Any
) -> list[Any]:
    """Make the transforms of a list.

    Args:
        steps: Mappings with `name` and arguments; compositions hold `transforms`.
        path: Dotted path of the list in the recipe.
        problems: What is wrong is added here.
        library: The module `albumentations`.
    """
    made = [
        _make_step(step, f"{path}.{position}", problems, library=library)
        for position, step in enumerate(steps)
    ]
    return [step for step in made if step is not None]


def refusals(pipeline: Any) -> list[str]:
    """Say which steps of a pipeline made in Python may not stand in it: those that normalise."""
    inner = getattr(pipeline, "transforms", None)
    steps = inner if isinstance(inner, list | tuple) else ()
    nested = [line for step in steps for line in refusals(step)]
    name = type(pipeline).__name__
    return [_refusal(name), *nested] if _REFUSED.get(name) == _NORMALISES else nested


def find_unfit(
    steps: Sequence[Any],
    path: str,
    spec: "InputSpec",
    failures: tuple[type[Exception], ...],
    *,
    library: Any,
) -> list[Problem]:
    """Find transforms that cannot take images of the input's channels, by trying each on one.

    Args:
        steps: Transforms and compositions of them.
        path: Dotted path of the list in the recipe.
        spec: What the network takes.
        failures: What albumentations and OpenCV raise on an image that a transform cannot take.
        library: The module `albumentations`.
    """
    found: list[Problem] = []
    for position, step in enumerate(steps):
        here = f"{path}.{position}"
        if isinstance(step, library.BaseCompose):
            inner = f"{here}.transforms"
            found += find_unfit(step.transforms, inner, spec, failures, library=library)
            continue
        reason = _why_unfit(step, spec, spec.channels, failures)
        # What fails on RGB as well fails for another reason, such as the size of this one image.
        if reason and not _why_unfit(step, spec, 3, failures):
            name = type(step).__name__
            message = f"{name} cannot take {spec.channels}-channel images: {reason}"
            found.append(Problem(here, message))
    return found


def _why_unfit(
    step: Any, spec: "InputSpec", channels: int, failures: tuple[type[Exception], ...]
) -> str | None:
    """Say why a transform does not take an image of so many channels, if it does not."""
    import numpy as np

    shape = (spec.height, spec.width, channels)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    certain = copy.deepcopy(step)
    certain.p = 1.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = certain(image=image)["image"]
    except failures as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    depth = result.shape[2] if result.ndim == 3 else 1
    return None if depth == channels else f"it gives {depth}"


def _refusal(name: str) -> str:
    """Say why a transform cannot be had."""
    return f"{name} cannot stand in an augmentation: {_REFUSED[name]}"


def _allowed(library: Any) -> dict[str, type]:
    """Give the library's own transforms that a recipe may name."""
    bases = (library.BasicTransform, library.BaseCompose)
    found = {name: getattr(library, name) for name in dir(library) if name[0].isupper()}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value)
        and issubclass(value, bases)
        and name not in _REFUSED
        and name not in _NOT_OF_IMAGES
        and not name.endswith("3D")
    }


def _make_step(step: Mapping[str, Any], path: str, problems: list[Problem], *, library: Any) -> Any:
    """Make one transform; None where it cannot be made, the reason among `problems`."""
    name = step["name"]
    if name in _REFUSED:
        problems.append(Problem(path, _refusal(name)))
        return None
    allowed = _allowed(library)
    if name not in allowed:
        near = nearest(name, list(allowed))
        hint = near and f"did you mean {near}?"
        problems.append(Problem(path, f"albumentations has no transform {name!r}", hint=hint))
        return None
    num_before = len(problems)
    arguments = {key: value for key, value in step.items() if key != "name"}
    problems.extend(_unknown_arguments(allowed[name], arguments, path))
    if "transforms" in arguments:
        arguments["transforms"] = make_steps(
            arguments["transforms"], f"{path}.transforms", problems, library=library
        )
    if len(problems) > num_before:
        return None
    return _construct(allowed[name], arguments, path, problems)


def _unknown_arguments(kind: type, arguments: Mapping[str, Any], path: str) -> list[Problem]:
    """Name arguments that a transform does not take; albumentations only warns of them."""
    foreign = ("strict", "first", "second")  # not of YAML: a mode, and objects of OneOrOther
    known = [name for name in inspect.signature(kind).parameters if name not in foreign]
    unknown = [name for name in arguments if name not in known]
    nears = [nearest(name, known) for name in unknown]
    return [
        Problem(
            f"{path}.{name}",
            f"{kind.__name__} has no argument {name!r}; it takes {', '.join(known)}",
            hint=near and f"did you mean {near}?",
        )
        for name, near in zip(unknown, nears, strict=True)
    ]


def _construct(kind: type, arguments: dict[str, Any], path: str, problems: list[Problem]) -> Any:
    """Call a constructor: strict, since albumentations else takes defaults for what it rejects.

    Where there is no strict mode (compositions, classes without a schema of their own), its
    warnings are errors; where there is one, they only advise other transforms.
    """
    is_strict = "InitSchema" in vars(kind)
    mode = {"strict": True} if is_strict else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if is_strict else "error")
            return kind(**arguments, **mode)
    except (ArithmeticError, LookupError, TypeError, ValueError, Warning) as error:
        problems.extend(_explained(kind.__name__, error, path))
    return None


def _explained(name: str, error: Exception, path: str) -> list[Problem]:
    """Turn a constructor's error into problems: one for each value where it lists values."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return [Problem(path, f"{name}: {error}")]
    return [
        Problem(".".join([path, *map(str, item["loc"][:1])]), f"{name}: {_sentence(item)}")
        for item in details()
    ]


def _sentence(item: Mapping[str, Any]) -> str:
    """Say what pydantic says of one value, and the value where there is one."""
    message = str(item["msg"]).removeprefix("Value error, ")
    has_value = item["loc"] and item["type"] != "missing"
    return f"{message}, not {item['input']!r}" if has_value else message
