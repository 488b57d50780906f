"""What imports cost, and how a process spends less on them.

torch, timm and scikit-learn make a million objects that live as long as the process. They are
imported in a thread while threads that decode leave a core to it, and a command does not search
them for garbage again and again (`docs/benchmarks/startup.json`).
"""

import atexit
import gc
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

__all__ = ["collect_rarely", "importing"]

# New objects from one search for garbage to the next; Python's own is 700. In what a command
# does, garbage that only a search finds comes by the hundred, from errors that were caught.
_OBJECTS_BETWEEN_SEARCHES = 50_000


def collect_rarely() -> None:
    """Search for garbage in this process rarely from now on, and not at its end.

    For a process of ours alone, which a command has: what is told is told to all of it.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)  # what is left goes back to the system with the process


@contextmanager
def importing(names: Sequence[str]) -> Iterator[None]:
    """Import modules beside a piece of work; both are over when the block is left.

    An import that fails is tried again, and told, where the module is needed. An error of the block
    waits for the imports as well: no thread outlives it.

    Args:
        names: Modules by their full names, in order.
    """
    # Careful: filters of warnings belong to the process. An import that sets and resets its own
    # beside a block that does so too may leave those of either; what there was comes back here.
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        for name in names:
            pool.submit(import_module, name)
        yield
