"""`finetune cache`: what is stored, and how to be rid of it."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.model.store import ActivationStore, StoreKey, image_id, open_store
from finetune.runtime.stores import list_stores, stores_folder

DAY = 86_400
SIZES = {"new": 2, "old": 5}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a cache of its own."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def stores() -> dict[str, Path]:
    """Two stores: one used just now, one 40 days ago."""
    paths = {}
    for name, num_images in SIZES.items():
        with fill(name, num_images) as store:
            paths[name] = Path(store.place.reason.removeprefix("in "))
    used = time.time() - 40 * DAY
    os.utime(paths["old"] / "store.json", (used, used))
    return paths


@pytest.fixture
def in_use(stores: dict[str, Path]) -> Iterator[Path]:
    """The old store, open in this process."""
    with fill("old", 0):
        used = time.time() - 40 * DAY
        os.utime(stores["old"] / "store.json", (used, used))
        yield stores["old"]


def fill(name: str, num_images: int) -> ActivationStore:
    store = open_store(StoreKey(name, "{}"), [(1000,)], label=f"{name} network, block 3")
    ids = [image_id(str(number)) for number in range(num_images)]
    store.add(ids, [torch.zeros(num_images, 1000)])
    return store


def test_an_empty_cache_is_said_to_be(call: Callable[..., Any]) -> None:
    answer = call("cache", "ls")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"0 stores, 0 B, in {stores_folder()}\n"
    assert call("cache", "ls", "--json").out == "[]\n"
    assert call("cache", "clear").out == "0 stores removed, 0 B freed\n"
    assert not stores_folder().exists()


def test_stores_are_listed_with_what_they_are_of(
    call: Callable[..., Any], stores: dict[str, Path]
) -> None:
    lines = [line.split() for line in call("cache", "ls").out.splitlines()]
    names = {name: path.name[:8] for name, path in stores.items()}
    assert lines == [
        ["store", "of", "images", "size", "last", "used"],
        [names["new"], "new", "network,", "block", "3", "2", *lines[1][6:8], "just", "now"],
        [names["old"], "old", "network,", "block", "3", "5", *lines[2][6:8], "40", "d", "ago"],
        ["2", "stores,", *lines[3][2:4], "in", str(stores_folder())],
    ]
    assert lines[2][7] == "KiB"
    assert 20 <= float(lines[2][6]) <= 22


def test_the_list_is_also_for_programs(call: Callable[..., Any], stores: dict[str, Path]) -> None:
    newest, oldest = json.loads(call("cache", "ls", "--json").out)
    assert newest["of"] == "new network, block 3"
    assert oldest.keys() == {
        "store", "of", "num_images", "num_bytes", "last_used", "is_in_use", "path",
    }  # fmt: skip
    assert (oldest["store"], oldest["path"]) == (stores["old"].name, str(stores["old"]))
    assert oldest["num_images"] == 5
    assert 5 * 4024 <= oldest["num_bytes"] <= 5 * 4024 + 2000
    assert oldest["is_in_use"] is False
    age = time.time() - datetime.fromisoformat(oldest["last_used"]).timestamp()
    assert 40 * DAY <= age < 40 * DAY + 60


def test_clearing_removes_everything_and_says_how_much(
    call: Callable[..., Any], stores: dict[str, Path]
) -> None:
    num_bytes = sum(row["num_bytes"] for row in json.loads(call("cache", "ls", "--json").out))
    answer = call("cache", "clear")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"2 stores removed, {num_bytes / 1024:.0f} KiB freed\n"
    assert list_stores(stores_folder()) == ()
    assert [path.name for path in stores_folder().iterdir()] == [".lock"]


@pytest.mark.parametrize(("age", "left"), [("30d", 1), ("5w", 1), ("41d", 2), ("1000 h", 2)])
def test_only_what_is_older_is_removed(
    call: Callable[..., Any], stores: dict[str, Path], age: str, left: int
) -> None:
    removed = json.loads(call("cache", "clear", "--older-than", age, "--json").out)["removed"]
    assert [row["store"] for row in removed] == [stores["old"].name] * (2 - left)
    assert len(list_stores(stores_folder())) == left
    assert stores["new"].exists()


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "month"])
def test_a_time_that_is_none_is_refused(
    call: Callable[..., Any], stores: dict[str, Path], age: str
) -> None:
    answer = call("cache", "clear", f"--older-than={age}")
    assert answer.code == 2
    assert answer.err == (
        f"error: --older-than {age} is no time\nhint: write --older-than 30d or 12h\n"
    )
    assert len(list_stores(stores_folder())) == 2


def test_a_store_in_use_is_left(call: Callable[..., Any], in_use: Path) -> None:
    assert "in use" in call("cache", "ls").out
    answer = call("cache", "clear", "--older-than", "1d")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "0 stores removed, 0 B freed",
        f"kept, since a process uses it: {in_use.name[:8]} (old network, block 3)",
    ]
    answer = json.loads(call("cache", "clear", "--json").out)
    assert [row["of"] for row in answer["removed"]] == ["new network, block 3"]
    assert [row["is_in_use"] for row in answer["kept_in_use"]] == [True]
    assert in_use.is_dir()


def test_what_cannot_be_read_is_listed_and_removed(
    call: Callable[..., Any], stores: dict[str, Path]
) -> None:
    (stores["old"] / "store.json").write_text("{")
    (stores["new"] / "store.json").unlink()
    assert call("cache", "ls").out.count("unreadable") == 2
    assert call("cache", "clear").out.startswith("2 stores removed, ")


def test_what_a_dead_process_left_half_removed_is_swept(
    call: Callable[..., Any], stores: dict[str, Path]
) -> None:
    stores["old"].rename(stores["old"].with_name(".gone-1"))
    assert len(json.loads(call("cache", "ls", "--json").out)) == 1
    call("cache", "clear", "--older-than", "30d")
    assert not (stores_folder() / ".gone-1").exists()
    assert stores["new"].exists()


def test_without_a_subcommand_the_help_is_shown(call: Callable[..., Any]) -> None:
    answer = call("cache")
    assert answer.code == 0
    assert {"ls", "clear"} <= {line.split()[0] for line in answer.out.splitlines() if line.strip()}


def test_an_unknown_subcommand_gets_the_nearest(call: Callable[..., Any]) -> None:
    answer = call("cache", "clean")
    assert answer.code == 2
    assert answer.err == ("error: finetune cache has no command clean\nhint: did you mean clear?\n")
