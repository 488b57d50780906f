"""Memory that is freed stays with the process for as long as a block lasts."""

import subprocess
import sys

import pytest

from finetune.runtime import allocator
from finetune.runtime.allocator import freed_memory_kept

# A child, since the memory of this process has a history. It is not the name of the platform that
# counts but what the C library does with 64 MiB, which no default keeps.
_CHILD = """
import ctypes, os, sys
from finetune.runtime.allocator import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
def use():
    place = library.malloc(64 << 20)
    ctypes.memset(place, 1, 64 << 20)
    library.free(place)

start = resident()
use()
before = resident() - start
with freed_memory_kept():
    with freed_memory_kept():
        use()
    inside = resident() - start
print(before, inside, resident() - start)
"""


def grown(**environment: str) -> list[int]:
    """Give how many MiB a process keeps of 64 freed ones: without a block, in one, and after it."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


@pytest.fixture
def glibc() -> None:
    """Skip where there is another C library."""
    if allocator._glibc() is None:
        pytest.skip("not glibc, or tuned from outside")


@pytest.mark.usefixtures("glibc")
def test_freed_memory_stays_until_the_outermost_block_ends() -> None:
    before, inside, after = grown()
    assert before < 8
    assert inside > 56
    assert after < 8


@pytest.mark.usefixtures("glibc")
def test_settings_of_the_person_stand() -> None:
    assert max(grown(MALLOC_MMAP_THRESHOLD_="131072")) < 8


def test_an_error_ends_a_block_too() -> None:
    for _ in range(2):
        with pytest.raises(KeyError), freed_memory_kept():
            raise KeyError
    assert allocator._depth == 0
