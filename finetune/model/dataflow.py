"""What of a traced forward pass is frozen, and where it is best cut from what learns.

A node is frozen if it follows from the image and from tensors that do not learn, by operations that
do the same each time. Everything else learns, or depends on what does. The cut is the set of
frozen tensors that what learns is computed from: the smallest that can be had without computing
much of the frozen part again.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from finetune.model.tracing import SAMPLE_SIZES, Observation, is_mentioned, observed

__all__ = ["Cut", "CutError", "choose_cut", "is_question", "needed_for"]

# Of the operations of the part that learns, what may be computed again in each step so that less
# is stored. Small enough not to be felt; pooling, views, activations and normalisations count none.
_MOST_AGAIN = 0.05
_MOST_CANDIDATES = 200  # tensors looked at for a smaller cut, the nearest first

_QUESTIONS = frozenset(
    {"device", "dim", "dtype", "element_size", "is_complex", "is_contiguous", "is_cuda"}
    | {"is_floating_point", "layout", "ndim", "ndimension", "nelement", "numel", "requires_grad"}
    | {"shape", "size", "stride"}
)
_RANDOM = frozenset(
    {"bernoulli", "cauchy", "exponential", "geometric", "gumbel_softmax", "log_normal"}
    | {"multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn"}
    | {"randn_like", "random", "randperm", "rrelu", "uniform"}
)
_TRAINING = frozenset({"training"})


class CutError(ValueError):
    """A graph that cannot be cut; the message says why in a few words."""


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        nodes: What crosses, in the order in which it is computed: tensors (B · rows, …).
        before: Dotted path of the first module that is behind the cut as a whole.
        frozen_share: Share of the operations of a forward pass that are before the cut, in [0, 1].
    """

    nodes: tuple[fx.Node, ...]
    before: str
    frozen_share: float

    @property
    def names(self) -> tuple[str, ...]:
        """The observed names of what crosses."""
        return tuple(observed(node).name for node in self.nodes)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of what crosses, for one image."""
        shapes = [tuple(observed(node).values[0].shape[1:]) for node in self.nodes]
        return tuple(
            shape if rows == 1 else (rows, *shape)
            for rows, shape in zip(self.rows, shapes, strict=True)
        )

    @property
    def rows(self) -> tuple[int, ...]:
        """How many rows of each tensor belong to an image: more than one of windows or patches."""
        return tuple(_num_rows(node) for node in self.nodes)


def choose_cut(graph: fx.Graph, network: nn.Module) -> Cut:
    """Choose what crosses from the frozen part of a graph to the part that learns.

    Args:
        graph: Traced in the modes that training has.
        network: With the parameters that learn requiring a gradient.

    Raises:
        CutError: Nothing learns, nothing is frozen, or no tensors by image separate the two.
    """
    flow = _Flow(graph, network)
    if not any(node in flow.learning for node in flow.live):
        raise CutError("nothing learns")
    nodes = flow.smallest_cut()
    behind = needed_for(graph, set(nodes))
    if any(node.op == "placeholder" for node in nodes):
        raise CutError(_why_at_the_image(behind, network))
    if any(_row_bytes(node) == math.inf for node in nodes):
        raise CutError("what the part that learns takes is no tensor by image")
    before = needed_for(graph, set(), of=nodes)
    frozen, learning = (sum(observed(node).flops for node in part) for part in (before, behind))
    order = tuple(node for node in graph.nodes if node in set(nodes))
    return Cut(order, _first_module(behind, before), frozen / ((frozen + learning) or 1.0))


def needed_for(
    graph: fx.Graph, cut: set[fx.Node], *, of: Iterable[fx.Node] | None = None
) -> tuple[fx.Node, ...]:
    """Collect, in order, the nodes that the output is computed from; the cut is not followed.

    Nor is what is only asked about its shape or type.

    Args:
        graph: A traced graph.
        cut: Nodes whose value is given; they are not collected.
        of: The nodes wanted, instead of the output; what is only asked about is then followed.
    """
    wanted = [node for node in graph.nodes if node.op == "output"] if of is None else list(of)
    found: set[fx.Node] = set()
    while wanted:
        node = wanted.pop()
        if node in found or node in cut:
            continue
        found.add(node)
        wanted += () if of is None and is_question(node) else node.all_input_nodes
    return tuple(node for node in graph.nodes if node in found)


def is_question(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its shape, type or place: not for what is in it.

    Numbers that a function or module kept whole gives beside its tensors are taken for a shape.
    """
    if node.op == "call_function" and node.target is operator.getitem:
        source: Any = node.args[0]
        is_given = not observed(source).is_tensor and not is_question(source)
        return is_given and all(map(_is_number, observed(node).values))
    if node.op == "call_function" and node.target is getattr:
        name = str(node.args[1])
    elif node.op == "call_method":
        name = str(node.target)
    else:
        name = "size" if node.op == "call_function" and node.target in (len, torch.numel) else ""
    asked = node.args[0] if node.args else None
    is_about_tensor = isinstance(asked, fx.Node) and observed(asked).is_tensor
    return name in _QUESTIONS and is_about_tensor and not observed(node).is_tensor


def _is_number(value: Any) -> bool:
    """Whether a value is a whole number, or such numbers side by side."""
    return isinstance(value, int) or (
        isinstance(value, (list, tuple)) and all(isinstance(part, int) for part in value)
    )


class _Flow:
    """The flow of data through a graph."""

    def __init__(self, graph: fx.Graph, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())
        self.live = needed_for(graph, set())
        self.learning: set[fx.Node] = set()
        self._by_image: set[fx.Node] = set()  # what is in the image changes it
        for node in graph.nodes:
            if any(given in self.learning for given in node.all_input_nodes) or self._learns(node):
                self.learning.add(node)
            given = any(before in self._by_image for before in node.all_input_nodes)
            if node.op == "placeholder" or (given and not is_question(node)):
                self._by_image.add(node)

    @cached_property
    def needed(self) -> tuple[fx.Node, ...]:
        """The frozen values that what learns takes as they are, in order."""
        users = [n for n in self.live if n in self.learning and not is_question(n)]
        taken = {given for node in users for given in self._givers[node]}
        return tuple(node for node in self._frozen if node in taken)

    def smallest_cut(self) -> tuple[fx.Node, ...]:
        """Find the cut that stores the fewest bytes an image within what may be computed again."""
        learning = sum(observed(node).flops for node in self.live if node in self.learning)
        budget = _MOST_AGAIN * learning
        anchors: tuple[fx.Node, ...] = ()
        best, _ = self._cut_at(anchors)
        while True:
            limit = budget if _cost(best) < (1,) else math.inf
            found = [(self._cut_at((*anchors, node)), node) for node in self._above(best, limit)]
            better = [
                (_cost(cut), index, cut, node)
                for index, ((cut, again), node) in enumerate(found)
                if again <= limit and _cost(cut) < _cost(best)
            ]
            if not better:
                return best
            _, _, best, anchor = min(better, key=lambda option: option[:2])
            anchors = (*anchors, anchor)

    def _learns(self, node: fx.Node) -> bool:
        """Whether a node itself holds what learns, or may act otherwise another time."""
        if node.op == "get_attr":
            value = observed(node).values[0]
            return isinstance(value, torch.Tensor) and value.requires_grad
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            is_trained = any(parameter.requires_grad for parameter in module.parameters())
            return is_trained or any(map(_varies, module.modules()))
        return node.op in ("call_function", "call_method") and _is_random(node)

    @cached_property
    def _givers(self) -> dict[fx.Node, list[fx.Node]]:
        """By node, the frozen values that it takes and that follow from what is in the image."""
        frozen = self._places
        return {node: [n for n in node.all_input_nodes if n in frozen] for node in self.live}

    @cached_property
    def _places(self) -> dict[fx.Node, int]:
        """By frozen node, its place among them."""
        return {node: place for place, node in enumerate(self._frozen)}

    def _cut_at(self, anchors: tuple[fx.Node, ...]) -> tuple[tuple[fx.Node, ...], float]:
        """Give the cut that stores these nodes, and the operations to be done again behind it."""
        below: set[fx.Node] = set(anchors)
        first = min((self._places[node] for node in anchors), default=len(self._frozen))
        for node in self._frozen[first:]:
            if any(given in below for given in self._givers[node]):
                below.add(node)
        stored: dict[fx.Node, None] = {}
        again: dict[fx.Node, None] = {}
        pending = list(self.needed)
        while pending:
            node = pending.pop()
            if node in anchors or node not in below:
                stored[node] = None
            elif node not in again:
                again[node] = None
                pending += self._givers[node]
        return tuple(stored), sum(observed(node).flops for node in again)

    @cached_property
    def _frozen(self) -> tuple[fx.Node, ...]:
        """The frozen nodes that what is in the image changes, and that the output needs."""
        return tuple(n for n in self.live if n in self._by_image and n not in self.learning)

    def _above(self, cut: tuple[fx.Node, ...], limit: float) -> list[fx.Node]:
        """Find nodes from which some of a cut can be computed with so many operations."""
        cost = {node: observed(node).flops for node in cut}
        found = list(cut)  # one of them may give the others
        for node in reversed(self._frozen):
            if node not in cost or cost[node] > limit or len(found) > _MOST_CANDIDATES:
                continue
            for given in self._givers[node]:
                if given not in cost:
                    found.append(given)
                total = cost[node] + observed(given).flops
                cost[given] = min(cost.get(given, math.inf), total)
        return found


def _cost(cut: tuple[fx.Node, ...]) -> tuple[int, float, int]:
    """Order cuts: what cannot be stored, bytes an image, tensors."""
    sizes = [_row_bytes(node) for node in cut]
    return sizes.count(math.inf), sum(size for size in sizes if size < math.inf), len(cut)


def _row_bytes(node: fx.Node) -> float:
    """The size of a node's value for one image; infinite where it is no tensor by image."""
    if not _num_rows(node):
        return math.inf
    tensor = observed(node).values[0]
    return float(tensor.numel() // SAMPLE_SIZES[0] * tensor.element_size())


def _num_rows(node: fx.Node) -> int:
    """Count the rows that belong to an image; 0 where a node is no tensor by image."""
    tensors = observed(node).values
    if not all(isinstance(tensor, torch.Tensor) and tensor.ndim for tensor in tensors):
        return 0
    rows = {len(tensor) / size for tensor, size in zip(tensors, SAMPLE_SIZES, strict=True)}
    is_by_image = len(rows) == 1 and tensors[0].shape[1:] == tensors[1].shape[1:]
    return int(max(rows)) if is_by_image and max(rows).is_integer() else 0


def _varies(module: nn.Module) -> bool:
    """Whether a module may act otherwise another time, given the same, in its present mode."""
    if not module.training or not is_mentioned(_TRAINING, type(module)):
        return False
    if "Drop" not in type(module).__name__:
        return True
    rates = [getattr(module, name, None) for name in ("p", "drop_prob")]
    return not any(rate == 0 for rate in rates)


def _is_random(node: fx.Node) -> bool:
    """Whether a function or method draws, or follows the statistics of a batch."""
    name = getattr(node.target, "__name__", str(node.target))
    if name == "batch_norm":
        settings = _settings(node)
        return bool(settings.get("training", True)) and settings.get("running_mean") is not None
    if "dropout" in name:
        settings = _settings(node)
        return bool(settings.get("training", True)) and settings.get("p", 1) != 0
    return bool(node.kwargs.get("dropout_p", 0)) or name.strip("_") in _RANDOM


def _settings(node: fx.Node) -> dict[str, Any]:
    """Give the arguments of a function by name, where it says their names."""
    if node.op != "call_function":
        return dict(node.kwargs)
    try:
        signature = inspect.signature(node.target)  # type: ignore[arg-type]
        bound = signature.bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):  # a built-in function says no names
        return dict(node.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _why_at_the_image(behind: Iterable[fx.Node], network: nn.Module) -> str:
    """Say why nothing is before the cut: what learns is first, or is in a module kept whole."""
    for node in behind:
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            learns = {parameter.requires_grad for parameter in module.parameters()}
            if learns == {False, True} and any(True for _ in module.children()):
                return f"{node.target} can only be taken as a whole"
    return "the first layer learns"


def _first_module(behind: Iterable[fx.Node], before: Iterable[fx.Node]) -> str:
    """Name the largest module that is behind the cut as a whole, the first of them."""
    partly = {
        parent
        for node in before
        if node.op not in ("get_attr", "placeholder")
        for parent in _parents(observed(node))
    }
    for node in behind:
        whole = [path for path in _parents(observed(node)) if path and path not in partly]
        if whole and node.op not in ("get_attr", "output"):
            return whole[0].removeprefix("backbone.")
    return "the output"


def _parents(observation: Observation) -> list[str]:
    """Give the paths of a node's module and of what it is in, the outermost first."""
    parts = observation.path.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]
