"""Words of commands, quoted as the shell of the system reads them."""

import pytest

from finetune.runtime.shell import quote


@pytest.mark.parametrize(
    ("system", "text", "expected"),
    [
        ("linux", "runs/birds-001", "runs/birds-001"),
        ("linux", "my birds", "'my birds'"),
        ("win32", r"runs\birds-001", r"runs\birds-001"),
        ("win32", r"C:\my birds", r'"C:\my birds"'),
    ],
)
def test_a_word_is_quoted_where_the_shell_needs_it(
    monkeypatch: pytest.MonkeyPatch, system: str, text: str, expected: str
) -> None:
    monkeypatch.setattr("finetune.runtime.shell.sys.platform", system)
    assert quote(text) == expected
