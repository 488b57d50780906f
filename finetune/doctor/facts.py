"""What the doctor looks at, as plain data, and what it finds.

`gather.py` fills a `Facts` from the machine; the checks judge one without touching the machine.
A field that is None could not be found out, and the check that needs it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.types import MachineFacts

__all__ = [
    "Check",
    "DeviceFacts",
    "Extra",
    "Facts",
    "Finding",
    "HubFacts",
    "ImportFailure",
    "Level",
    "Need",
    "Place",
    "SoftwareFacts",
    "TorchFacts",
    "WeightsFacts",
]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has to say.

    Attributes:
        check: Name of the check.
        level: `ok`; `warning`, where a run works with a drawback; `problem`, where it does not.
        message: One sentence.
        hint: The next command to type; None where there is nothing to do.
    """

    check: str
    level: Level
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """A range of versions that one distribution declares for another.

    Attributes:
        by: The distribution that declares it.
        name: The distribution that it needs.
        allowed: The range, such as `>=2.6,<3`; empty where any version will do.
        installed: The version found; None where it is not installed.
    """

    by: str
    name: str
    allowed: str
    installed: str | None

    @property
    def requirement(self) -> str:
        """What pip takes: `torch>=2.6,<3`."""
        return f"{self.name}{self.allowed}"


@dataclass(frozen=True, slots=True)
class Extra:
    """Optional dependencies that a person may install: `finetune-vision[lora]`."""

    name: str
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class ImportFailure:
    """A library that cannot be imported.

    Attributes:
        distribution: What pip calls it.
        reason: What it raised, or how it ended the process that imported it.
    """

    distribution: str
    reason: str


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """The pair of torch and torchvision, as they call themselves.

    Attributes:
        version: Of torch, with its build: `2.13.0+cpu`.
        cuda: Version of CUDA that torch is built with; None for a build without.
        torchvision: Version of torchvision; None where it cannot be imported.
        has_ops: Whether torchvision's compiled operators load beside this torch.
    """

    version: str
    cuda: str | None
    torchvision: str | None = None
    has_ops: bool = False


@dataclass(frozen=True, slots=True)
class SoftwareFacts:
    """What is installed, and whether it loads.

    Attributes:
        python: Version of Python.
        python_allowed: The range that this package declares; None where it is not installed.
        version: Of this package; None where it is not installed.
        needs: Of this package, then of what it needs, and so on.
        extras: Optional dependencies of this package, those for its developers left out.
        failures: Libraries that cannot be imported, those left out whose own needs cannot.
        torch: None where torch cannot be imported.
    """

    python: str
    python_allowed: str | None
    version: str | None
    needs: tuple[Need, ...]
    extras: tuple[Extra, ...]
    failures: tuple[ImportFailure, ...]
    torch: TorchFacts | None


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device that a run would use.

    Attributes:
        machine: Device and precision with their reasons; None where torch cannot compute.
        failure: Why it cannot; None where it can, or where torch cannot be imported.
        note: What torch warned of while it looked for a GPU; None where it did not.
        free_bytes: Of the GPU's own memory; None without a GPU, or where it is not told.
        total_bytes: As above.
        has_nvidia_driver: Whether the driver of an NVIDIA GPU is loaded.
    """

    machine: MachineFacts | None
    failure: str | None = None
    note: str | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    has_nvidia_driver: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that a run writes; it need not exist yet.

    Attributes:
        path: The folder.
        free_bytes: What this user may still write there; 0 where nothing can be written.
    """

    path: Path
    free_bytes: int


@dataclass(frozen=True, slots=True)
class HubFacts:
    """Whether the Hugging Face hub is within reach.

    Attributes:
        not_asked: Why it was not asked; None where it was.
        failure: Why it is out of reach; None where it answered, or was not asked.
    """

    not_asked: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class WeightsFacts:
    """What is there already.

    Attributes:
        repositories: Of the Hugging Face cache, those with weights.
        num_stores: Stores of what frozen layers compute; None where they cannot be listed.
        store_bytes: Their size.
    """

    repositories: tuple[str, ...]
    num_stores: int | None
    store_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks judge.

    Attributes:
        software: What is installed.
        device: What computes.
        num_cpus: Cores that this process may use.
        cpu_quota: Cores' worth of time that a container's limit allows; None without a limit.
        memory_bytes: Memory that can be had without swapping; 0 where unknown.
        shm_bytes: Free in `/dev/shm`; None where workers hand over batches in another way.
        runs: Where runs go.
        stores: Where activations of frozen layers go.
        weights_folder: Where downloaded weights go.
        hub: Whether new weights can be had; None where the hub's client cannot be imported.
        cached: What is there already.
    """

    software: SoftwareFacts
    device: DeviceFacts
    num_cpus: int
    cpu_quota: float | None
    memory_bytes: int
    shm_bytes: int | None
    runs: Place
    stores: Place
    weights_folder: Place
    hub: HubFacts | None
    cached: WeightsFacts


Check = Callable[[Facts], Iterator[Finding]]
