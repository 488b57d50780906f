"""Whether the hub is there, asked once; no test waits for a network."""

from pathlib import Path
from ssl import SSLCertVerificationError
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import pytest

from finetune.errors import BackboneError
from finetune.model import hub
from finetune.model.backbone import create_backbone


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
    with hub.within_reach("net", {"hf_hub_id": "timm/net"}):
        assert constants.HF_HUB_OFFLINE
    assert seen == [False]


def test_weights_at_an_address_alone_are_asked_for_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = {"url": "https://weights.example/v1/net-1234.pth"}
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "_ask", lambda url: "no route")
    with pytest.raises(BackboneError) as caught, hub.within_reach("net", source):
        pass
    assert caught.value.message == (
        "no pretrained weights for net within reach: not in torch's cache, and weights.example did "
        "not give net-1234.pth (no route)"
    )
    assert "--no-pretrained" in str(caught.value.hint)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-1234.pth").write_bytes(b"")
    with hub.within_reach("net", source):
        pass


def test_without_weights_the_configuration_of_a_repository_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "ask_hub", lambda repository: f"no way to {repository}")
    with pytest.raises(BackboneError) as caught:
        create_backbone("hf-hub:nobody/nothing", pretrained=False)
    assert caught.value.message == (
        "no configuration for hf-hub:nobody/nothing within reach: not in the Hugging Face cache, "
        "and the hub did not give nobody/nothing (no way to nobody/nothing)"
    )
    assert "--no-pretrained" not in str(caught.value.hint)
