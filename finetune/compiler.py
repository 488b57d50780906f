"""Let torchvision and timm be imported without torch's compiler.

Importing `torch._dynamo`, with sympy and torch.distributed behind it, takes as long as importing
torch. torchvision names it for a question that an operator puts on a GPU, timm for a decorator of
one method. Neither is in a hurry: while they are imported, a stand-in answers to the compiler's
name. Its two functions import the compiler when they are called, as torch's own modules do
(`torch._compile`); whatever else is asked of it brings the compiler at once. See ADR 0016.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["compiler_deferred"]

_PACKAGE = "torch._dynamo"
_UTILS = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Answers to the name of a module until something is asked of it that cannot wait."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of every module
            raise AttributeError(name)
        _withdraw()
        return getattr(import_module(self.__name__), name)


@contextmanager
def compiler_deferred() -> Iterator[None]:
    """Import what names torch's compiler without importing the compiler, unless it is there.

    Careful: what is imported here must only name it; what uses it at once gets the real one, and
    nothing is gained.
    """
    if _PACKAGE in sys.modules:
        yield
        return
    package, utils = _StandIn(_PACKAGE), _StandIn(_UTILS)
    package.__dict__.update(__path__=[], utils=utils, disable=_disable)
    utils.__dict__.update(is_compile_supported=_is_compile_supported)
    sys.modules.update({_PACKAGE: package, _UTILS: utils})
    try:
        yield
    finally:
        _withdraw()


def _withdraw() -> None:
    """Let the next import of the compiler find the real one."""
    for name in (_PACKAGE, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _disable(
    function: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None
) -> Any:
    """Keep a function out of compiled code, from its first call on, as torch does for its own."""
    from torch._compile import _disable_dynamo

    return _disable_dynamo(function, recursive)


def _is_compile_supported(device_type: Any) -> bool:
    """Ask the compiler whether it can serve a device."""
    return bool(import_module(_UTILS).is_compile_supported(device_type))
