"""All checks together: what a healthy machine hears, and one about which nothing is known."""

from dataclasses import replace

from planted import CPU, HEALTHY, with_device

from finetune.doctor.examine import CHECKS, can_run, examine
from finetune.doctor.facts import DeviceFacts, WeightsFacts


def test_a_healthy_machine_hears_that_it_is_healthy() -> None:
    assert [(found.check, found.message) for found in examine(HEALTHY)] == [
        ("python", "this is Python 3.12.3, within >=3.11,<3.14"),
        (
            "libraries",
            "finetune-vision 0.1.0 has the 2 libraries that it needs, and their versions fit each "
            "other",
        ),
        ("imports", "every library that is installed for a run can be imported"),
        ("torchvision", "torchvision 0.28.0+cpu fits torch 2.13.0+cpu"),
        ("extras", "the extra lora is installed: peft 0.21.2"),
        ("device", "runs on cpu: no GPU that torch can use is there"),
        (
            "precision",
            "trains in bf16, unless a run measures its network to be clearly slower in it",
        ),
        ("memory", "16 GiB of memory are free"),
        ("cores", "8 cores: 4 workers will decode photos"),
        (
            "shared memory",
            "8.0 GiB are free in /dev/shm; the batches of 4 workers take 147 MiB at 448 px",
        ),
        ("disk", "100 GiB are free for runs in /photos/runs"),
        ("hub", "the Hugging Face hub answers: weights can be downloaded"),
        ("cached", "weights are cached of timm/resnet18.a1_in1k"),
        ("cached", "2 stores of activations, 5.0 MiB, can be used again"),
    ]
    assert {(found.level, found.hint) for found in examine(HEALTHY)} == {("ok", None)}
    assert can_run(examine(HEALTHY))


def test_a_finding_names_its_check() -> None:
    assert [name for name, check in CHECKS.items() for _ in check(HEALTHY)] == [
        found.check for found in examine(HEALTHY)
    ]
    assert {found.check for found in examine(HEALTHY)} == CHECKS.keys()


def test_what_is_not_known_is_not_judged() -> None:
    unknown = replace(
        HEALTHY,
        software=replace(HEALTHY.software, torch=None, extras=()),
        device=DeviceFacts(None),
        memory_bytes=0,
        shm_bytes=None,
        hub=None,
        cached=WeightsFacts((), None),
    )
    assert [found.check for found in examine(unknown)] == [
        "python", "libraries", "imports", "cores", "disk", "cached",
    ]  # fmt: skip


def test_a_warning_does_not_prevent_a_run_and_a_problem_does() -> None:
    assert can_run(examine(with_device(machine=CPU, has_nvidia_driver=True)))
    assert not can_run(examine(with_device(machine=None, failure="RuntimeError: no kernel")))
