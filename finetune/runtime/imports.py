"""Import in a thread what is needed later, while threads that decode leave a core to it."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

__all__ = ["importing"]


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
