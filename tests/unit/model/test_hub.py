"""Whether the hub is there, asked once; no test waits for a network."""

from ssl import SSLCertVerificationError
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import pytest

from finetune.model import hub


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HTTPError("https://x", 401, "Unauthorized", {}, None), None),  # type: ignore[arg-type]
        # Some Pythons know no certificates; the hub's client, which comes next, has its own.
        (URLError(SSLCertVerificationError("unable to get local issuer certificate")), None),
        (URLError(OSError("Name or service not known")), "Name or service not known"),
        (ConnectionResetError("reset by peer"), "reset by peer"),
    ],
)
def test_who_answers_at_all_is_there(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str | None
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise error

    monkeypatch.setattr(hub, "urlopen", fail)
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    assert hub.ask_hub("user/model") == reason


def test_an_older_client_asks_anew_whether_it_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    seen = []
    told = SimpleNamespace(reset=lambda: seen.append(constants.HF_HUB_OFFLINE))
    monkeypatch.setattr("huggingface_hub.utils.reset_sessions", told.reset, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "is_cached", lambda *arguments: True)
    with hub.weights_within_reach("net", {"hf_hub_id": "timm/net"}):
        assert constants.HF_HUB_OFFLINE
    assert seen == [False]
