"""Staged transfer learning for image classification: fast, honest, reproducible.

The face of the package is lazy: `import finetune` costs milliseconds, and a name pulls in
what it needs when it is first used.

    from finetune import Classifier

    classifier = Classifier("efficientnet_b0").fit("photos/")
    classifier.predict(["new.jpg"])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from finetune.version import __version__

if TYPE_CHECKING:
    from finetune.classifier import Classifier, load
    from finetune.recipe.schema import Recipe

__all__ = ["Classifier", "Recipe", "__version__", "load"]

_HOME = {
    "Classifier": "finetune.classifier",
    "load": "finetune.classifier",
    "Recipe": "finetune.recipe.schema",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module it lives in, on first use (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'finetune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted(__all__)
