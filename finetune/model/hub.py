"""Whether pretrained weights are within reach, asked once and fast, before timm tries for a minute.

timm and the hub's client retry a dead network for most of a minute and end in a stack trace. Here
the local cache is looked at first, then the hub is asked for the head of one file, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from finetune.errors import BackboneError

__all__ = ["ask_hub", "is_cached", "is_offline", "weights_within_reach"]

_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
_TIMEOUT_SECONDS = 3.0  # the whole command has 5; the rest is imports


@contextmanager
def weights_within_reach(name: str, source: Mapping[str, Any]) -> Iterator[None]:
    """Enter where the weights of a backbone are cached or the hub answers; raise where not.

    Where they are cached the hub's client is told to stay offline within the context: it would
    otherwise ask the network first, and wait for it.

    Args:
        name: The backbone as the person wrote it.
        source: timm's pretrained configuration (`hf_hub_id`, `url`, `file`); empty for a folder.

    Raises:
        BackboneError: There are no weights for this name, or nothing to get them from.
    """
    from huggingface_hub import constants

    repository = source.get("hf_hub_id")
    local = not source or source.get("file") or source.get("state_dict")
    if not local and not repository and not source.get("url"):
        raise BackboneError(
            f"timm has no pretrained weights for {name}",
            hint="give your own with --weights FILE, or start from random ones: --no-pretrained",
        )
    cached = bool(repository) and is_cached(str(repository), source.get("hf_hub_filename"))
    reason = None if local or cached or not repository else ask_hub(str(repository))
    if reason is not None:
        raise BackboneError(
            f"no pretrained weights for {name} within reach: not in the Hugging Face cache, and "
            f"the hub did not give {repository} ({reason})",
            hint="connect to the network once; or --weights FILE, or --backbone local-dir:FOLDER; "
            "or --no-pretrained to start from random weights",
        )
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or cached
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        _forget_sessions()


def _forget_sessions() -> None:
    """Let an older client of the hub, below 1.0, ask anew whether it is to stay offline."""
    import huggingface_hub.utils

    reset = getattr(huggingface_hub.utils, "reset_sessions", None)
    if reset is not None:
        reset()


def is_cached(repository: str, filename: str | None = None) -> bool:
    """Whether a weights file of a hub repository stands in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = repository.partition("@")
    files = (filename,) if filename else _FILES
    return any(
        isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str)
        for file in files
    )


def is_offline() -> bool:
    """Whether the person forbade the hub's client any attempt to reach the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def ask_hub(repository: str) -> str | None:
    """Ask the hub once whether it is there, within three seconds.

    A thread bounds the time: a name server that never answers has no timeout of its own.

    Args:
        repository: Any one: a refusal is an answer, too.

    Returns:
        The reason why it is out of reach; None where it answered.
    """
    from huggingface_hub import hf_hub_url

    if is_offline():
        return "HF_HUB_OFFLINE is set"
    url = hf_hub_url(repository.partition("@")[0], "config.json")
    answer: list[str | None] = []
    thread = threading.Thread(target=lambda: answer.append(_why_unreachable(url)), daemon=True)
    thread.start()
    thread.join(_TIMEOUT_SECONDS)
    return answer[0] if answer else f"no answer within {_TIMEOUT_SECONDS:.0f} seconds"


def _why_unreachable(url: str) -> str | None:
    """Ask for the head of a file; any answer at all, a refusal too, means that the hub is there."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT_SECONDS).close()
    except HTTPError:
        return None
    except URLError as error:
        # Who shows a certificate is there: the hub's client brings certificates of its own.
        return None if isinstance(error.reason, SSLError) else str(error.reason)
    except OSError as error:
        return str(error)
    return None
