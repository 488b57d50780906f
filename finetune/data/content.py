"""What a file holds, whatever it is called and whenever it was written."""

import hashlib
from typing import BinaryIO

__all__ = ["digest_of"]

_DIGEST_BYTES = 16  # 128 bits: no two of a billion files meet by chance
_BLOCK_BYTES = 1 << 20


def digest_of(file: BinaryIO) -> str:
    """Digest an open file from its start; where it was just read, it comes from memory."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()
