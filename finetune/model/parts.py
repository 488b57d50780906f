"""The two parts of a network on either side of a cut, as modules that share everything with it.

Each part runs code that torch.fx writes from a graph. The frozen part holds the modules that its
code calls. The trained part holds the network itself, so that it trains, moves, is copied and is
saved as the network; it runs the graph of the mode that the network is in.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import fx, nn

from finetune.model.dataflow import Cut, CutError, is_question, needed_for
from finetune.model.tracing import SAMPLE_SIZES, observed

__all__ = ["FrozenPart", "TrainedPart", "digest_of", "frozen_code", "trained_code"]

_CONSTANT = "_tensor_constant"  # torch.fx's name of a tensor that forward code makes of numbers
_SETTING_TYPES = (bool, float, int, str)
_VERSIONED = ("builtins", "finetune", "peft", "timm", "torch", "torchvision", "typing")
_OF_EVERY_CLASS = (
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__qualname__",
    "__static_attributes__",
)


@dataclass(frozen=True, slots=True)
class Code:
    """What a part runs.

    Attributes:
        run: Called with a module, tensors, and the constants.
        source: Python code.
        targets: Dotted names of the modules, parameters and buffers that it uses.
        constants: Tensors that are none of these.
    """

    run: Callable[..., Any]
    source: str
    targets: tuple[str, ...]
    constants: tuple[torch.Tensor, ...]


class FrozenPart(nn.Module):
    """Images (B, C, H, W) to what crosses the cut, a tuple of tensors (B, …).

    Its modules are the network's own. `train()` does nothing: frozen is frozen. It is made for the
    device that the network is on.
    """

    def __init__(self, network: nn.Module, code: Code) -> None:
        super().__init__()
        self._code = code
        for name in sorted(code.targets, key=lambda name: name.count(".")):
            _place(self, name, operator.attrgetter(name)(network))
        _hold(self, "frozen", code.constants)
        self.training = False

    def train(self, mode: bool = True) -> FrozenPart:
        """Do nothing."""
        return self

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute what crosses the cut."""
        crossing: tuple[torch.Tensor, ...] = self._code.run(self, images, *_held(self, "frozen"))
        return crossing


class TrainedPart(nn.Module):
    """What crosses the cut to logits (B, K), in the modes that the network is in.

    `network` is the network itself: put it into its modes by `set_modes`, as ever.
    """

    def __init__(
        self, network: nn.Module, codes: dict[bool, Code], *, is_changing: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self._codes = codes
        self._is_changing = is_changing
        self.training = network.training
        for mode, code in codes.items():
            _hold(self, f"{mode}", code.constants)

    def forward(self, *crossing: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K)."""
        mode = self.network.training
        if self._is_changing:  # the first layers work in place: what is stored stays as it is
            crossing = tuple(tensor.clone() for tensor in crossing)
        logits: torch.Tensor = self._codes[mode].run(self.network, *crossing, *_held(self, mode))
        return logits

    def of(self, network: nn.Module) -> TrainedPart:
        """Give the same part of another network of the same architecture, such as an average."""
        return TrainedPart(network, self._codes, is_changing=self._is_changing)


def frozen_code(graph: fx.Graph, cut: Cut, *, traced: nn.Module) -> Code:
    """Make the code from images to what crosses a cut.

    Args:
        graph: Traced on a copy of the network.
        cut: What crosses.
        traced: The copy, which has the constants.
    """
    part = fx.Graph()
    wanted = needed_for(graph, set(), of=cut.nodes)
    images = next(node for node in graph.nodes if node.op == "placeholder")
    env: dict[fx.Node, Any] = {images: part.placeholder("images")}
    constants = _constants(wanted, part, env)
    _copy(wanted, part, env)
    part.output(
        tuple(
            env[node] if rows == 1 else part.call_method("unflatten", (env[node], 0, (-1, rows)))
            for node, rows in zip(cut.nodes, cut.rows, strict=True)
        )
    )
    return _compile(part, traced, constants)


def trained_code(graph: fx.Graph, cut: Cut, *, traced: nn.Module) -> Code:
    """Make the code from what crosses a cut to the logits.

    Args:
        graph: Traced on a copy of the network, in the modes of training or in eval mode.
        cut: What crosses, found by name where it is of another graph.
        traced: The copy, which has the constants.

    Raises:
        CutError: The graph has no such nodes, or needs more than they give.
    """
    by_name = {observed(node).name: node for node in graph.nodes}
    if any(name not in by_name for name in cut.names):
        raise CutError("what crosses in training is not there in eval mode")
    crossing = [by_name[name] for name in cut.names]
    nodes = needed_for(graph, set(crossing))
    if any(node.op == "placeholder" for node in nodes if node not in crossing):
        raise CutError("in eval mode the part that learns needs the image itself")
    part = fx.Graph()
    env: dict[fx.Node, Any] = {
        node: part.placeholder(f"crossing_{index}") for index, node in enumerate(crossing)
    }
    constants = _constants(nodes, part, env)
    batch = _Batch(part, env[crossing[0]], dtype=observed(crossing[0]).values[0].dtype)
    for node, rows in zip(crossing, cut.rows, strict=True):
        if rows > 1:
            env[node] = part.call_method("flatten", (env[node], 0, 1))
    questions = [node for node in nodes if is_question(node)]
    given = {*crossing, *nodes}
    env |= {node: batch.answer(node) for node in questions if node.args[0] not in given}
    _copy(nodes, part, env)
    return _compile(part, traced, constants)


def digest_of(part: nn.Module, source: str, *, without: Iterable[nn.Module] = ()) -> str:
    """Identify what a part computes: code, settings of its modules, and bytes of its tensors.

    Args:
        part: Its modules and tensors are what the code uses.
        source: Python code, or what stands for it.
        without: Modules of the part that do not count.

    Returns:
        32 hexadecimal digits, the same in every process that computes the same.
    """
    digest = blake2b(source.encode(), digest_size=16)
    left_out = {inner for module in without for inner in module.modules()}
    for name, module in part.named_modules():
        if module in left_out:
            continue
        kind = type(module)
        settings = sorted(_settings(module))
        digest.update(f"{name}|{kind.__module__}.{kind.__qualname__}|{settings}".encode())
        digest.update(_own_code(kind))
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for own_name, tensor in own:
            digest.update(f"{own_name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy())
    return digest.hexdigest()


class _Batch:
    """Answers for a tensor that a part does not have, from the first tensor that it has."""

    def __init__(self, part: fx.Graph, first: fx.Node, *, dtype: torch.dtype) -> None:
        self._part = part
        self._first = first
        self._dtype = dtype
        self._size: fx.Node | None = None

    def answer(self, node: fx.Node) -> Any:
        """Answer a question: a constant, or a formula of the size of the batch."""
        values = observed(node).values
        if isinstance(values[0], torch.device):
            return self._part.call_function(getattr, (self._first, "device"))
        if values[0] == self._dtype:
            return self._part.call_function(getattr, (self._first, "dtype"))
        return self._formula(*values)

    def _formula(self, small: Any, large: Any) -> Any:
        """Express what was seen for two sizes of the batch."""
        if isinstance(small, (list, tuple)) and len(small) == len(large):
            formulas = tuple(map(self._formula, small, large))
            return list(formulas) if isinstance(small, list) else formulas
        if type(small) is type(large) and small == large:
            return small
        if not isinstance(small, int):
            raise CutError("the part that learns asks what does not follow from the batch's size")
        slope = (large - small) // (SAMPLE_SIZES[1] - SAMPLE_SIZES[0])
        self._size = self._size or self._part.call_method("size", (self._first, 0))
        scaled = self._part.call_function(operator.mul, (self._size, slope))
        return self._part.call_function(operator.add, (scaled, small - slope * SAMPLE_SIZES[0]))


def _constants(
    nodes: Iterable[fx.Node], part: fx.Graph, env: dict[fx.Node, Any]
) -> tuple[str, ...]:
    """Make placeholders of the constants among some nodes; give their names."""
    found: dict[str, fx.Node] = {}
    for node in nodes:
        if node.op == "get_attr" and str(node.target).startswith(_CONSTANT):
            name = str(node.target)
            found[name] = found.get(name) or part.placeholder(name.strip("_"))
            env[node] = found[name]
    return tuple(found)


def _copy(nodes: Iterable[fx.Node], part: fx.Graph, env: dict[fx.Node, Any]) -> None:
    """Copy nodes that are not there yet, in order."""
    for node in nodes:
        if node not in env:
            env[node] = part.node_copy(node, env.__getitem__)
            env[node].meta.clear()  # it has the samples


def _compile(part: fx.Graph, traced: nn.Module, constants: tuple[str, ...]) -> Code:
    """Turn a graph into code."""
    written = part.python_code("self")
    namespace = dict(written.globals)
    exec(compile(written.src, "<part of a network>", "exec"), namespace)
    tensors = tuple(getattr(traced, name) for name in constants)
    used = [str(node.target) for node in part.nodes if node.op in ("call_module", "get_attr")]
    return Code(namespace["forward"], written.src, tuple(dict.fromkeys(used)), tensors)


def _place(holder: nn.Module, name: str, member: Any) -> None:
    """Put a module or tensor under a dotted name; what is in a module placed before is there."""
    *outer, own = name.split(".")
    for part in outer:
        if not hasattr(holder, part):
            holder.add_module(part, nn.Module())
        holder = getattr(holder, part)
    if hasattr(holder, own):
        return
    if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
        holder.register_buffer(own, member)
    else:
        setattr(holder, own, member)


def _hold(holder: nn.Module, key: object, constants: tuple[torch.Tensor, ...]) -> None:
    """Keep constants as buffers, so that they move with a part."""
    for index, tensor in enumerate(constants):
        holder.register_buffer(f"constant_{key}_{index}", tensor, persistent=False)


def _held(holder: nn.Module, key: object) -> Iterator[torch.Tensor]:
    """Give the constants that were kept."""
    return (
        tensor
        for name, tensor in holder.named_buffers(recurse=False)
        if name.startswith(f"constant_{key}_")
    )


def _own_code(kind: type[nn.Module]) -> bytes:
    """Give what stands in a person's own class; that of libraries is known by their versions.

    Of what its methods call outside of the class nothing is known.
    """
    own = [one for one in kind.__mro__ if one.__module__.partition(".")[0] not in _VERSIONED]
    found: list[tuple[Any, ...]] = []
    for name, value in ((name, value) for one in own for name, value in vars(one).items()):
        if name not in _OF_EVERY_CLASS and _is_plain(value):
            found.append((name, value))
        found += [
            (name, _code_of(method.__code__), [*map(_known, _defaults_of(method))])
            for method in _functions(value)
        ]
    return repr(found).encode()


def _defaults_of(function: FunctionType) -> list[Any]:
    """Give the defaults of a function, those of keywords by their names."""
    return [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]


def _known(value: Any) -> Any:
    """Give what has the same text in every process: a plain value, or a name."""
    if isinstance(value, tuple):
        return [*map(_known, value)]
    return value if _is_plain(value) else getattr(value, "__qualname__", type(value).__qualname__)


def _functions(value: object) -> list[FunctionType]:
    """Give the functions behind what a class has under a name, those that decorators wrap too."""
    inner = (getattr(value, name, None) for name in ("__func__", "fget", "fset", "__wrapped__"))
    own = [value] if isinstance(value, FunctionType) else []
    return own + [function for one in inner if one is not None for function in _functions(one)]


def _code_of(code: CodeType) -> tuple[Any, ...]:
    """Give what a function does, by its instructions, names and constants; not where it stands."""
    return code.co_code, code.co_names, [*map(_constant, code.co_consts)]


def _constant(value: Any) -> Any:
    """Give a constant of code as what has the same text in every process."""
    if isinstance(value, CodeType):
        return _code_of(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def _settings(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Give what a module was built with, as far as plain values and functions say."""
    for name, value in vars(module).items():
        if name == "training" or name.startswith("_"):
            continue
        if _is_plain(value):
            yield name, repr(value)
        elif callable(value):
            yield name, str(getattr(value, "__qualname__", type(value).__qualname__))


def _is_plain(value: Any) -> bool:
    """Whether the text of a value is the same in every process."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _SETTING_TYPES)
