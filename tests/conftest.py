"""Shared fixtures: a private cache, no network, a tiny image folder, the assets folder."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# As the command line does, before torch is imported: beside other work, threads that spin while
# they wait make a test of half a minute one of many.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets a width; what tests read has none

COLOURS = {"blue": (40, 60, 200), "green": (40, 170, 60), "red": (200, 50, 40)}
IMAGES_PER_CLASS = 12


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every cache of the libraries away from the person's own."""
    cache = tmp_path_factory.mktemp("cache")
    names = ("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(cache / name.lower()) for name in names})
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but local ones, and every look-up of a name."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("tests have no network")

    look_up = socket.getaddrinfo

    def look_up_local(host: object, *args: Any, **kwargs: Any) -> Any:
        if host != "127.0.0.1":
            refuse()
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", look_up_local)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of three classes, told apart by their colour: 12 PNGs of 40x32 each."""
    folder = tmp_path_factory.mktemp("tiny") / "photos"
    write_colours(folder)
    return folder


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real photos and real pretrained weights; skips where it is absent."""
    named = os.environ.get("FINETUNE_ASSETS")
    if not named or not Path(named).is_dir():
        pytest.skip("FINETUNE_ASSETS names no folder of photos and weights")
    return Path(named)


def write_colours(folder: Path, *, per_class: int = IMAGES_PER_CLASS) -> None:
    """Write images of noisy colour, one folder a class."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            noise = rng.normal(0, 30, size=(32, 40, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number:02d}.png")
