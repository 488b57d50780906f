"""Where it runs: the device, whether bf16 pays there, and what else the machine offers.

Torch is imported inside the functions: a recipe can be read without it.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from multiprocessing import current_process
from typing import Any

from finetune.errors import DISTRIBUTION, FinetuneError
from finetune.runtime.space import cpu_share
from finetune.types import Choice, MachineFacts

__all__ = [
    "BF16_INSTRUCTIONS",
    "NO_BF16",
    "available_cpus",
    "choose_device",
    "describe_environment",
    "machine_facts",
    "may_compute",
    "peak_memory_mib",
    "plain_fp32",
    "processor_seconds",
    "require_one_process",
]

# Of x86 and of ARM, as torch names them. A processor without them imitates bf16, very slowly.
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")
NO_BF16 = "this processor has no bf16 instructions"
# AMD's GPUs by architecture: those of data centres from MI100 on, and of desktops from RX 7000 on.
_AMD_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "accelerate",
    "scikit-learn",
    "numpy",
    "pillow",
)


def machine_facts(device: str = "auto") -> MachineFacts:
    """Say what the resolution of a recipe needs to know of this machine.

    Raises:
        FinetuneError: The device asked for is not there.
    """
    choice = choose_device(device)
    bf16 = _bf16_rule(choice.value)
    return MachineFacts(
        device=choice.value,
        device_reason=choice.reason,
        has_fast_bf16=bf16.value,
        num_cpus=available_cpus(),
        bf16_reason=bf16.reason,
    )


def choose_device(wanted: str = "auto") -> Choice[str]:
    """Choose a device: the first CUDA one, else Apple's, else the CPU; or check the one wanted.

    Raises:
        FinetuneError: The device asked for is not there.
    """
    import torch

    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if wanted == "auto":
        if num_cuda:
            return Choice("cuda:0", f"auto: {torch.cuda.get_device_name(0)} is there")
        if has_mps:
            return Choice("mps", "auto: Apple's GPU is there")
        return Choice("cpu", "auto: no GPU that torch can use is there")
    index = int(wanted.partition(":")[2] or 0)
    if (wanted.startswith("cuda") and index >= num_cuda) or (wanted == "mps" and not has_mps):
        there = [f"cuda:{i}" for i in range(num_cuda)] + ["mps"] * has_mps + ["cpu"]
        raise FinetuneError(
            f"device {wanted} is not there; torch {torch.__version__} sees {', '.join(there)}",
            hint="use --device auto",
        )
    return Choice(f"cuda:{index}" if wanted.startswith("cuda") else wanted, "as asked for")


@contextmanager
def plain_fp32(device: str) -> Iterator[None]:
    """Let a GPU compute fp32 as fp32 for a while: TF32, which cuDNN else takes, has 10 bits.

    Args:
        device: A torch device string; others than CUDA have no such arithmetic.
    """
    if not device.startswith("cuda"):
        yield
        return
    import torch

    cudnn: Any = torch.backends.cudnn
    is_new = hasattr(cudnn, "conv")  # torch 2.9; the names before may not be mixed with it
    convolutions = [cudnn.conv, cudnn.rnn] if is_new else [cudnn]
    places: list[Any] = [*convolutions, torch.backends.cuda.matmul]
    name, plain = ("fp32_precision", "ieee") if is_new else ("allow_tf32", False)
    with ExitStack() as stack:
        for place in places:
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, plain)
        yield


def require_one_process() -> None:
    """Refuse to run as one of several processes that would write into one folder.

    Raises:
        FinetuneError: `torchrun` or `accelerate launch` started more than one; or this is a process
            that decodes for a script, and begins with running the script again.
    """
    # Where processes are not forked, each imports the script that started it first.
    if getattr(current_process(), "_inheriting", False):
        raise FinetuneError(
            "this script starts a run whenever it is imported, and processes that decode import it",
            hint='put the run below the line: if __name__ == "__main__":',
        )
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes > 1:
        raise FinetuneError(
            f"this was started in {num_processes} processes; a run uses one process and one device",
            hint="start it without torchrun or accelerate launch",
        )


def available_cpus() -> int:
    """Count the cores that this process may use; a container's share of time is one of cores."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    share = cpu_share()
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def describe_environment(machine: MachineFacts, *, seed: int) -> dict[str, object]:
    """Describe versions, hardware and seed: the content of `environment.json`."""
    import torch

    cuda_name = torch.cuda.get_device_name(machine.device) if "cuda" in machine.device else None
    return {
        "schema_version": 1,
        "versions": {
            DISTRIBUTION: _version(DISTRIBUTION),
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "hardware": {
            "platform": platform.platform(),
            "machine": platform.machine(),
            "num_cpus": machine.num_cpus,
            "num_threads": torch.get_num_threads(),
            "gpu": cuda_name,
        },
        "device": machine.device,
        "device_reason": machine.device_reason,
        "seed": seed,
    }


def peak_memory_mib() -> int:
    """Give the largest resident memory of this process so far, in MiB; 0 where unknown."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024))


def processor_seconds() -> float:
    """Read this thread's processor time in seconds; on Windows, which rounds it, the wall's.

    This thread takes part in all that torch shares out among threads, and what it does alone counts
    in full; it sleeps while it waits for another one that the system does not let run.
    """
    return time.perf_counter() if sys.platform == "win32" else time.thread_time()


def may_compute(*instructions: str) -> bool:
    """Tell whether this processor has one of these sets of instructions, as far as torch can tell.

    Args:
        instructions: Names of `torch.cpu.get_capabilities`; those of other architectures than this
            one count for nothing.
    """
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # an older torch; AVX2 is older than all that is asked for here
        return torch.backends.cpu.get_cpu_capability() != "AVX2"
    features = capabilities()
    known = [features[name] for name in instructions if name in features]
    return any(known) or not known


def _bf16_rule(device: str) -> Choice[bool]:
    """Whether bf16 pays by rule: on CUDA from Ampere on; elsewhere it has to be measured."""
    if device == "cpu" and not may_compute(*BF16_INSTRUCTIONS):
        return Choice(False, NO_BF16)
    if not device.startswith("cuda"):
        return Choice(False, f"bf16 does not pay for every network on {device}")
    if _has_bf16_units(device):
        return Choice(True, "this GPU has bf16 matrix units, and bf16 needs no loss scaling")
    return Choice(False, "this GPU has no bf16 matrix units")


def _has_bf16_units(device: str) -> bool:
    """Tell whether a GPU multiplies matrices in bf16: NVIDIA's from Ampere on, AMD's by name."""
    import torch

    if torch.version.hip is None:
        return torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)
    name = str(getattr(torch.cuda.get_device_properties(device), "gcnArchName", ""))
    return name.startswith(_AMD_WITH_BF16)


def _version(name: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
