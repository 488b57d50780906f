"""Seeds as a function of what they are for.

Randomness is a function of (seed, stage, epoch, sample) for data and of (seed, stage, epoch, step)
for dropout and mixup: never of the worker, of the order of calls, or of the process.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["derive_seed", "own_randomness"]


def derive_seed(*parts: int | str) -> int:
    """Derive a seed from what it is for; the same parts give the same seed on every machine.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derive_seed(0, "order", 1, 2) == derive_seed(0, "order", 1, 2)
        True
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def own_randomness(device: str = "cpu") -> Iterator[None]:
    """Leave the random state of torch, on the CPU and on one device, as it was found."""
    import torch

    index = torch.device(device).index or 0
    devices = [index] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        yield
