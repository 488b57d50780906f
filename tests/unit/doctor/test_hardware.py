"""What the doctor says of device, precision, memory, cores, shared memory and disk."""

from dataclasses import replace
from pathlib import Path

import pytest
from planted import CPU, GIB, GPU, HEALTHY, MIB, with_device, with_software

from finetune.doctor.facts import DeviceFacts, Finding, Place, TorchFacts
from finetune.doctor.hardware import (
    check_cores,
    check_device,
    check_disk,
    check_memory,
    check_precision,
    check_shared_memory,
)

RUN = "finetune run --data photos"
CUDA_TORCH = TorchFacts("2.13.0+cu130", "13.0", "0.28.0+cu130", True)


def test_a_gpu_that_is_used_is_named() -> None:
    facts = with_device(machine=GPU, has_nvidia_driver=True)
    assert list(check_device(facts)) == [
        Finding("device", "ok", "runs on cuda:0: NVIDIA L4 is there")
    ]


def test_a_gpu_beside_a_torch_without_cuda_is_a_warning() -> None:
    assert list(check_device(with_device(has_nvidia_driver=True))) == [
        Finding(
            "device",
            "warning",
            "runs on cpu: an NVIDIA driver is loaded, but torch 2.13.0+cpu is built without CUDA",
            "pip install --force-reinstall torch torchvision",
        )
    ]


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (None, "no GPU is visible"),
        ("the driver is too old", "the driver is too old"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_warning(note: str | None, said: str) -> None:
    facts = replace(
        with_software(torch=CUDA_TORCH), device=DeviceFacts(CPU, note=note, has_nvidia_driver=True)
    )
    assert list(check_device(facts)) == [
        Finding(
            "device",
            "warning",
            "runs on cpu: an NVIDIA driver is loaded, but torch 2.13.0+cu130, built for CUDA 13.0, "
            f"cannot use it ({said})",
            "nvidia-smi",
        )
    ]


def test_a_device_that_cannot_compute_is_a_problem() -> None:
    failure = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    assert list(check_device(with_device(machine=None, failure=failure))) == [
        Finding(
            "device",
            "problem",
            f"torch cannot compute on the device that it finds: {failure}",
            f"{RUN} --device cpu",
        )
    ]


@pytest.mark.parametrize(
    ("has_fast_bf16", "message"),
    [
        (True, "trains in bf16: this GPU has bf16 matrix units"),
        (False, "trains in fp32: this GPU has bf16 matrix units"),
    ],
)
def test_the_precision_of_a_gpu_has_its_reason(has_fast_bf16: bool, message: str) -> None:
    machine = replace(GPU, has_fast_bf16=has_fast_bf16)
    assert list(check_precision(with_device(machine=machine))) == [
        Finding("precision", "ok", message)
    ]


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (
            GIB,
            Finding(
                "memory",
                "problem",
                "1.0 GiB of memory are free; even a probe takes about 1.2 GiB",
                "top",
            ),
        ),
        (
            3 * GIB,
            Finding(
                "memory",
                "warning",
                "3.0 GiB of memory are free; training may take 4 GiB",
                f"{RUN} --set training.batch_size=8 --set training.accumulate=4",
            ),
        ),
        (4 * GIB, Finding("memory", "ok", "4.0 GiB of memory are free")),
    ],
)
def test_memory_is_compared_with_what_runs_took(free: int, expected: Finding) -> None:
    assert list(check_memory(replace(HEALTHY, memory_bytes=free))) == [expected]


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (
            4 * GIB,
            Finding(
                "memory",
                "warning",
                "4.0 GiB of the GPU's 22 GiB of memory are free: other processes hold the rest",
                "nvidia-smi",
            ),
        ),
        (21 * GIB, Finding("memory", "ok", "21 GiB of the GPU's 22 GiB of memory are free")),
    ],
)
def test_memory_of_the_gpu_that_others_hold_is_a_warning(free: int, expected: Finding) -> None:
    facts = with_device(machine=GPU, free_bytes=free, total_bytes=22 * GIB)
    assert list(check_memory(facts))[1:] == [expected]


def test_one_core_decodes_and_trains() -> None:
    machine = replace(CPU, num_cpus=1)
    facts = replace(HEALTHY, num_cpus=1, device=DeviceFacts(machine))
    assert list(check_cores(facts)) == [
        Finding("cores", "ok", "1 core: decoding and training take turns")
    ]
    assert list(check_shared_memory(facts)) == []


@pytest.mark.parametrize(
    ("quota", "said", "threads", "workers"), [(2.5, "2.5", 2, 1), (0.5, "0.5", 1, 0)]
)
def test_a_container_with_less_time_than_cores_is_a_warning(
    quota: float, said: str, threads: int, workers: int
) -> None:
    assert list(check_cores(replace(HEALTHY, cpu_quota=quota))) == [
        Finding(
            "cores",
            "warning",
            f"8 cores can be seen, but this container may use the time of {said}: threads and "
            "workers would wait for each other",
            f"OMP_NUM_THREADS={threads} {RUN} --set runtime.workers={workers}",
        )
    ]


def test_a_limit_beyond_the_cores_is_none() -> None:
    (found,) = check_cores(replace(HEALTHY, cpu_quota=8.0))
    assert found.level == "ok"


def test_too_little_shared_memory_is_a_problem() -> None:
    facts = replace(HEALTHY, shm_bytes=64 * MIB, device=DeviceFacts(GPU))
    assert list(check_shared_memory(facts)) == [
        Finding(
            "shared memory",
            "problem",
            "64 MiB are free in /dev/shm; the batches of 8 workers take 74 MiB at 224 px; "
            "--shm-size=2g gives a container more",
            f"{RUN} --set runtime.workers=6",
        )
    ]


def test_shared_memory_for_small_images_alone_is_a_warning() -> None:
    assert list(check_shared_memory(replace(HEALTHY, shm_bytes=64 * MIB))) == [
        Finding(
            "shared memory",
            "warning",
            "64 MiB are free in /dev/shm; the batches of 4 workers take 147 MiB at 448 px; "
            "--shm-size=2g gives a container more",
            f"{RUN} --set runtime.workers=1",
        )
    ]


@pytest.mark.parametrize(
    ("free", "level", "message"),
    [
        (0, "problem", "nothing can be written to /photos/runs, where runs go"),
        (100 * MIB, "problem", "100 MiB are free for runs in /photos/runs"),
        (
            2 * GIB,
            "warning",
            "2.0 GiB are free for runs in /photos/runs; one of a large network may take 3 GiB",
        ),
    ],
)
def test_a_disk_without_room_for_runs(free: int, level: str, message: str) -> None:
    (found,) = check_disk(replace(HEALTHY, runs=Place(Path("/photos/runs"), free)))
    assert (found.level, found.message) == (level, message)
    assert found.hint == f"{RUN} --out OTHER-DISK/run"


def test_caches_without_room_are_warnings() -> None:
    facts = replace(
        HEALTHY,
        stores=replace(HEALTHY.stores, free_bytes=300 * MIB),
        weights_folder=replace(HEALTHY.weights_folder, free_bytes=0),
    )
    assert list(check_disk(facts))[1:] == [
        Finding(
            "disk",
            "warning",
            "300 MiB can be written to /cache/activations: what frozen layers compute may be "
            "computed again",
            "finetune cache clear",
        ),
        Finding(
            "disk",
            "warning",
            "0 B can be written to /cache/hub: new weights may not fit",
            "export HF_HOME=OTHER-DISK/huggingface",
        ),
    ]
