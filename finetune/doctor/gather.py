"""The facts of this machine, gathered: metadata, one process that imports, the disk, the hub.

Nothing heavy is imported here. The hub is asked once, for three seconds at most, and only where
the person did not forbid it; nothing else here uses the network.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from finetune.doctor.attempts import Attempt, attempt
from finetune.doctor.facts import (
    DeviceFacts,
    Facts,
    HubFacts,
    ImportFailure,
    Place,
    SoftwareFacts,
    TorchFacts,
    WeightsFacts,
)
from finetune.doctor.needs import installed_version, python_range, read_extras, read_needs
from finetune.errors import DISTRIBUTION
from finetune.model.facts import cached_repositories, hub_cache_folder
from finetune.model.hub import ask_hub, is_offline
from finetune.runtime.device import available_cpus
from finetune.runtime.space import free_disk, free_memory, free_shared_memory
from finetune.runtime.stores import list_stores, stores_folder
from finetune.types import MachineFacts

__all__ = ["gather_facts"]

# What a run imports -> what pip calls it; in an order in which needs come first.
_LIBRARIES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "ruamel.yaml": "ruamel-yaml",
    "safetensors": "safetensors",
    "filelock": "filelock",
    "threadpoolctl": "threadpoolctl",
    "huggingface_hub": "huggingface-hub",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "accelerate": "accelerate",
    "albumentations": "albumentations",
}
_ANY_REPOSITORY = "timm/efficientnet_b0.ra_in1k"  # the weights of the default backbone
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # version 2 of control groups: quota and period


def gather_facts(*, offline: bool) -> Facts:
    """Look at this machine; takes as long as the imports of a run.

    Args:
        offline: Do not ask the hub.
    """
    there = [name for name, of in _LIBRARIES.items() if installed_version(of) is not None]
    attempts = attempt([*there, "device"])
    return Facts(
        software=_software(attempts),
        device=_device(attempts),
        num_cpus=available_cpus(),
        cpu_quota=_cpu_quota(),
        memory_bytes=free_memory(),
        shm_bytes=free_shared_memory(),
        runs=_place(Path("runs").absolute()),
        stores=_place(stores_folder()),
        weights_folder=_place(hub_cache_folder()),
        hub=_hub(attempts, offline=offline),
        cached=_cached(attempts),
    )


def _software(attempts: Mapping[str, Attempt]) -> SoftwareFacts:
    """Say what is installed, and whether it loads."""
    torch = attempts.get("torch", Attempt("not installed"))
    torchvision = attempts.get("torchvision", Attempt())
    return SoftwareFacts(
        python=platform.python_version(),
        python_allowed=python_range(DISTRIBUTION),
        version=installed_version(DISTRIBUTION),
        needs=read_needs(DISTRIBUTION),
        extras=read_extras(DISTRIBUTION),
        failures=tuple(
            ImportFailure(of, attempts[name].failure or "")
            for name, of in _LIBRARIES.items()
            if name in attempts and attempts[name].failure
        ),
        torch=None if torch.failure else TorchFacts(**torch.found, **torchvision.found),
    )


def _device(attempts: Mapping[str, Attempt]) -> DeviceFacts:
    """Say what computes."""
    has_driver = _NVIDIA_DRIVER.exists()
    tried = attempts.get("device")
    if tried is None or tried.failure:
        failure = None if tried is None else tried.failure
        return DeviceFacts(None, failure, has_nvidia_driver=has_driver)
    found = tried.found
    return DeviceFacts(
        MachineFacts(**found["machine"]),
        note=found["note"],
        free_bytes=found["free_bytes"],
        total_bytes=found["total_bytes"],
        has_nvidia_driver=has_driver,
    )


def _hub(attempts: Mapping[str, Attempt], *, offline: bool) -> HubFacts | None:
    """Ask the hub, unless that is forbidden; None where its client cannot be imported."""
    client = attempts.get("huggingface_hub")
    if client is None or client.failure:
        return None
    if offline:
        return HubFacts(not_asked="--offline")
    if is_offline():
        return HubFacts(not_asked="HF_HUB_OFFLINE is set")
    return HubFacts(failure=ask_hub(_ANY_REPOSITORY))


def _cached(attempts: Mapping[str, Attempt]) -> WeightsFacts:
    """List what is there already; the stores need file locks to be listed."""
    repositories = tuple(sorted(cached_repositories()))
    lock = attempts.get("filelock")
    if lock is None or lock.failure:
        return WeightsFacts(repositories, None)
    stores = list_stores(stores_folder())
    return WeightsFacts(repositories, len(stores), sum(info.num_bytes for info in stores))


def _place(folder: Path) -> Place:
    """Say what room a folder has."""
    return Place(folder, free_disk(folder))


def _cpu_quota() -> float | None:
    """Read how many cores' worth of time a container may use; None without a limit."""
    try:
        quota, period = _CPU_LIMIT.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # absent, or `max`
        return None
