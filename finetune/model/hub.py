"""Whether pretrained weights are within reach, asked once and fast, before timm tries for a minute.

timm and the hub's client retry a dead network for most of a minute and end in a stack trace. Here
the local caches are looked at first, then the hub, or whoever else has the weights, is asked for
the head of one file, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from finetune.errors import BackboneError

__all__ = ["ask_hub", "is_cached", "is_offline", "within_reach"]

_CONFIGURATION = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
_TIMEOUT_SECONDS = 3.0  # the whole command has 5; the rest is imports


@contextmanager
def within_reach(name: str, source: Mapping[str, Any]) -> Iterator[None]:
    """Enter where what makes a backbone is cached or can be fetched; raise where not.

    Where it is cached the hub's client is told to stay offline within the context: it would
    otherwise ask the network first, and wait for it.

    Args:
        name: The backbone as the person wrote it.
        source: timm's pretrained configuration (`hf_hub_id`, `hf_hub_filename`, `url`, `file`);
            empty where nothing is fetched.

    Raises:
        BackboneError: There are no weights for this name, or nothing to get them from.
    """
    from huggingface_hub import constants

    keys = ("hf_hub_id", "hf_hub_filename", "url")
    repository, filename, url = (str(source.get(key) or "") for key in keys)
    is_here = not source or source.get("file") or source.get("state_dict") or _is_downloaded(url)
    cached = bool(repository) and is_cached(repository, filename or None)
    if not is_here and not cached:
        _require_answer(name, repository=repository, filename=filename, url=url)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or cached
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        _forget_sessions()


def _require_answer(name: str, *, repository: str, filename: str, url: str) -> None:
    """Refuse a backbone that is nowhere, or that whoever has it does not give now."""
    if not repository and not url:
        raise BackboneError(
            f"timm has no pretrained weights for {name}",
            hint="give your own with --weights FILE, or start from random ones: --no-pretrained",
        )
    cache, who, what = "the Hugging Face cache", "the hub", repository
    if not repository:
        cache, who, what = "torch's cache", urlsplit(url).netloc, _file_of(url)
    reason = ask_hub(repository) if repository else _ask(url)
    if reason is None:
        return
    has_weights = filename != _CONFIGURATION
    raise BackboneError(
        f"no {'pretrained weights' if has_weights else 'configuration'} for {name} within reach: "
        f"not in {cache}, and {who} did not give {what} ({reason})",
        hint="connect to the network once; or --weights FILE, or --backbone local-dir:FOLDER; "
        "or --no-pretrained to start from random weights"
        if has_weights
        else "connect to the network once; or --backbone local-dir:FOLDER, or a name of timm's own",
    )


def _is_downloaded(url: str) -> bool:
    """Whether torch has stored what stands at an address, where timm looks first."""
    from torch.hub import get_dir

    return bool(url) and (Path(get_dir()) / "checkpoints" / _file_of(url)).is_file()


def _file_of(url: str) -> str:
    """Name the file at an address."""
    return urlsplit(url).path.rpartition("/")[2]


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

    Args:
        repository: Any one: a refusal is an answer, too.

    Returns:
        The reason why it is out of reach; None where it answered.
    """
    from huggingface_hub import hf_hub_url

    return _ask(hf_hub_url(repository.partition("@")[0], _CONFIGURATION))


def _ask(url: str) -> str | None:
    """Ask once, within three seconds, for the head of a file; give the reason where none comes.

    A thread bounds the time: a name server that never answers has no timeout of its own.
    """
    if is_offline():
        return "HF_HUB_OFFLINE is set"
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
