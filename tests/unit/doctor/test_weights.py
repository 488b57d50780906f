"""What the doctor says of the hub and of what is cached."""

from dataclasses import replace

import pytest
from planted import HEALTHY

from finetune.doctor.facts import Finding, HubFacts, WeightsFacts
from finetune.doctor.weights import check_cached, check_hub

LOCAL = "finetune run --data photos --backbone local-dir:FOLDER"
EMPTY = WeightsFacts((), 0)


def test_a_hub_out_of_reach_is_a_warning_since_weights_are_cached() -> None:
    facts = replace(HEALTHY, hub=HubFacts(failure="no answer within 3 seconds"))
    assert list(check_hub(facts)) == [
        Finding(
            "hub",
            "warning",
            "the Hugging Face hub is out of reach (no answer within 3 seconds): weights come from "
            "the cache, a folder or a file",
            "finetune backbones --pretrained",
        )
    ]


@pytest.mark.parametrize(
    ("hub", "state"),
    [
        (HubFacts(failure="timed out"), "out of reach (timed out)"),
        (HubFacts(not_asked="HF_HUB_OFFLINE is set"), "not asked (HF_HUB_OFFLINE is set)"),
    ],
)
def test_neither_hub_nor_cache_is_a_warning_with_the_way_out(hub: HubFacts, state: str) -> None:
    assert list(check_hub(replace(HEALTHY, hub=hub, cached=EMPTY))) == [
        Finding(
            "hub",
            "warning",
            f"the Hugging Face hub is {state}, and no weights are cached: they must come from a "
            "folder or a file",
            LOCAL,
        )
    ]


def test_a_hub_that_is_not_asked_is_no_fault() -> None:
    assert list(check_hub(replace(HEALTHY, hub=HubFacts(not_asked="--offline")))) == [
        Finding("hub", "ok", "the Hugging Face hub is not asked (--offline)")
    ]


def test_an_empty_cache_is_said_to_be() -> None:
    assert list(check_cached(replace(HEALTHY, cached=EMPTY))) == [
        Finding("cached", "ok", "no pretrained weights are cached")
    ]


def test_one_store_is_one() -> None:
    facts = replace(HEALTHY, cached=WeightsFacts((), 1, 2048))
    assert list(check_cached(facts))[1:] == [
        Finding("cached", "ok", "1 store of activations, 2.0 KiB, can be used again")
    ]
