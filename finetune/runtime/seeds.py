"""Seeds as a function of what they are for.

Randomness is a function of (seed, stage, epoch, sample) for data and of (seed, stage, epoch, step)
for dropout and mixup: never of the worker, of the order of calls, or of the process.
"""

import hashlib

__all__ = ["derive_seed"]


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
