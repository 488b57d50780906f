"""A network's forward pass as a graph, recorded while two small batches run through it.

torch.fx records what is done to its proxies and cannot follow Python that asks for a value. Here
every proxy knows what it stands for in a batch of two and in one of three images: a question about
sizes is answered where both batches agree, which is as it should be, since a network has one input
size. Where they do not agree, and wherever else tracing fails, the module in question stays whole:
one node of the graph. Values of tensors are never answered for: control flow by what is in the
image keeps its module whole, too. What timm says must not be traced is not.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from finetune.model.backbone import untraceable_parts

if TYPE_CHECKING:
    from finetune.model.network import Network

__all__ = ["SAMPLE_SIZES", "TRACE_FAILURES", "Observation", "is_mentioned", "observed", "trace"]

SAMPLE_SIZES = (2, 3)  # images: sizes that no formula of the other axes mistakes for one another

# What Python code was seen to raise when it meets a proxy, or torch when an argument is one.
TRACE_FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError),
)

_OBSERVATION = "observation"  # key of a node's meta
# A graph does not record that code entered one of these; their modules stay whole.
_CONTEXTS = frozenset(
    {"autocast", "enable_grad", "inference_mode", "no_grad", "set_grad_enabled"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation:
    """What a node of a graph was seen to be.

    Attributes:
        name: Module path, operation and count: the same in each graph of the network.
        path: Dotted path of the module in whose forward it happens.
        values: What it gives for a batch of each of `SAMPLE_SIZES`.
        flops: Floating-point operations for one image, of matrix products and convolutions.
    """

    name: str
    path: str
    values: tuple[Any, Any]
    flops: float

    @property
    def is_tensor(self) -> bool:
        """Whether it is one tensor."""
        return isinstance(self.values[0], torch.Tensor)


def observed(node: fx.Node) -> Observation:
    """Give what a node of a traced graph was seen to be."""
    observation: Observation = node.meta[_OBSERVATION]
    return observation


@torch.no_grad()
def trace(network: Network) -> fx.Graph:
    """Record a forward pass in the modes that the modules are in.

    Careful: forward code may leave proxies in the network's own attributes; give it a copy.

    Args:
        network: Its parameters may be another's; its random state is the caller's to keep.

    Returns:
        A graph with one placeholder, images (B, C, H, W), each node of it `observed`. Constant
        tensors become attributes `_tensor_constant…` of the network given.

    Raises:
        Exception: One of `TRACE_FAILURES`.
    """
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    images = tuple(
        torch.randn(size, *network.input_size, generator=generator).to(weight.device, weight.dtype)
        for size in SAMPLE_SIZES
    )
    graph = _Tracer(images).trace(network)
    _chain_mutations(graph, network)
    return graph


def is_mentioned(words: frozenset[str], kind: type) -> bool:
    """Whether the code of a class that its forward can reach mentions one of these names."""
    return bool(words & _names_in(kind))


class _Observed(fx.Proxy):
    """A proxy that answers questions about sizes."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> _ObservedAttribute:
        return _ObservedAttribute(self, name)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, index) for index in range(len(self))])

    def __len__(self) -> int:
        return int(self.tracer.answer(self, len))

    def __int__(self) -> int:
        return int(self.tracer.answer(self, int))

    def __index__(self) -> int:
        return int(self.tracer.answer(self, operator.index))

    def __float__(self) -> float:
        return float(self.tracer.answer(self, float))


class _ObservedAttribute(_Observed, fx.proxy.Attribute):
    """An attribute of a proxy; it becomes a node when it is used other than by a call."""


class _Tracer(fx.Tracer):
    """Records a graph and runs each node on the sample batches as it is recorded."""

    def __init__(self, images: tuple[torch.Tensor, ...]) -> None:
        modules, functions = untraceable_parts()
        super().__init__(autowrap_modules=(math,), autowrap_functions=functions)
        self._images = images
        self._whole = modules
        self._path = ""
        self._is_running = False
        self._cache: dict[str, fx.Proxy] = {}
        self._tensor_names: dict[int, str] = {}

    def trace(  # type: ignore[override]
        self, root: nn.Module, concrete_args: dict[str, Any] | None = None
    ) -> fx.Graph:
        """Record the forward pass of a module."""
        tensors = [*root.named_parameters(), *root.named_buffers()]
        self._tensor_names = {id(tensor): name for name, tensor in reversed(tensors)}
        graph = super().trace(root, concrete_args)
        _name(graph)
        return graph

    def answer(self, proxy: fx.Proxy, question: Callable[[Any], Any]) -> Any:
        """Answer a question about a size if it is the same in both batches."""
        values = proxy.node.meta[_OBSERVATION].values
        if isinstance(values[0], torch.Tensor) and question is not len:
            raise fx.proxy.TraceError("control flow by the value of a tensor")
        answers = [question(value) for value in values]
        if answers[0] != answers[1]:
            raise fx.proxy.TraceError("control flow by the size of the batch")
        return answers[0]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Wrap a node."""
        return _Observed(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Answer an `if`."""
        return bool(self.answer(obj, bool))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module stays whole."""
        known = isinstance(m, self._whole) or is_mentioned(_CONTEXTS, type(m))
        return known or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Give a proxy for a parameter or buffer that forward code asks for."""
        self._cache = parameter_proxy_cache
        name = self._tensor_names.get(id(attr_val))
        if self._is_running or name is None or not isinstance(attr_val, torch.Tensor):
            return attr_val
        if name not in self._cache:
            self._cache[name] = self.create_proxy("get_attr", name, (), {})
        return self._cache[name]

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Record what a module does, or the module as a whole where that fails."""
        if self._is_running:
            return forward(*args, **kwargs)
        path, outer = self.path_of_module(m), self._path
        last = next(iter(reversed(self.graph.nodes)))
        self._path = path
        try:
            if not self.is_leaf_module(m, path):
                return forward(*args, **kwargs)
        except TRACE_FAILURES:
            self._forget_after(last)
        finally:
            self._path = outer
        return self._call_whole(path, args, kwargs)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a node and run it on the sample batches."""
        node = super().create_node(kind, target, *args, **kwargs)
        values, flops = self._run(node)
        node.meta[_OBSERVATION] = Observation("", self._path, values, flops / SAMPLE_SIZES[0])
        return node

    def _call_whole(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a module as one node, which happens in the module itself."""
        outer, self._path = self._path, path
        try:
            return self.create_proxy("call_module", path, args, kwargs)
        finally:
            self._path = outer

    def _forget_after(self, last: fx.Node) -> None:
        """Erase the nodes recorded after one."""
        while (node := next(iter(reversed(self.graph.nodes)))) is not last:
            self.graph.erase_node(node)
        for name, proxy in list(self._cache.items()):
            if proxy.node._erased:
                del self._cache[name]

    def _run(self, node: fx.Node) -> tuple[tuple[Any, Any], float]:
        """Compute what a node gives for each sample batch, and count its operations."""
        if node.op == "placeholder":
            return (self._images[0], self._images[1]), 0
        if node.op == "output":
            return (None, None), 0
        outer, self._is_running = self._is_running, True
        try:
            with _OperationCount() as count:
                first = self._compute(node, 0)
            is_constant = all(_is_same(observed(given)) for given in node.all_input_nodes)
            return (first, first if is_constant else self._compute(node, 1)), count.flops
        finally:
            self._is_running = outer

    def _compute(self, node: fx.Node, sample: int) -> Any:
        """Compute what a node gives for one sample batch."""
        args = fx.node.map_arg(node.args, lambda given: observed(given).values[sample])
        kwargs = fx.node.map_arg(node.kwargs, lambda given: observed(given).values[sample])
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


class _OperationCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _is_same(observation: Observation) -> bool:
    """Whether a node gives the very same for both batches, as a parameter does."""
    return observation.values[0] is observation.values[1]


def _name(graph: fx.Graph) -> None:
    """Name each node by its module, its operation and how often that has occurred there."""
    seen: Counter[str] = Counter()
    for node in graph.nodes:
        seen_as = observed(node)
        operation = getattr(node.target, "__name__", str(node.target))
        stem = f"{seen_as.path}:{operation}"
        name = f"{stem}:{seen[stem]}"
        seen[stem] += 1
        node.meta[_OBSERVATION] = Observation(name, seen_as.path, seen_as.values, seen_as.flops)


def _chain_mutations(graph: fx.Graph, network: nn.Module) -> None:
    """Let what uses a tensor after a change in place use what the change gives: the same tensor."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.args[0] if node.args else None
        if not isinstance(changed, fx.Node) or not _is_in_place(node, network):
            continue
        for user in [user for user in changed.users if order[user] > order[node]]:
            user.replace_input_with(changed, node)


def _is_in_place(node: fx.Node, network: nn.Module) -> bool:
    """Whether a node changes its first argument."""
    if node.op == "call_module":
        return getattr(network.get_submodule(str(node.target)), "inplace", False) is True
    name = getattr(node.target, "__name__", str(node.target))
    is_marked = name.endswith("_") and not name.endswith("__")
    return node.kwargs.get("inplace", False) is True or (is_marked and node.op != "get_attr")


@cache
def _names_in(kind: type) -> frozenset[str]:
    """Collect the names that a module class mentions in its forward and in what that calls."""
    found: set[str] = set()
    pending, seen = ["forward"], {"forward"}
    while pending:
        name = pending.pop()
        function = getattr(kind, name, None)
        is_own = function is not getattr(nn.Module, name, None)
        if not isinstance(function, FunctionType) or not is_own:  # x.float() is no module's float
            continue
        names = _names_in_code(function.__code__)
        found |= names
        pending += sorted(names - seen)
        seen |= names
    return frozenset(found)


def _names_in_code(code: CodeType) -> set[str]:
    """Collect the names of globals and attributes in a piece of code and in what it nests."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in_code(constant)
    return names
