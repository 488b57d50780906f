"""torch's compiler is imported when it is used; each test is a process of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def output_of(code: str) -> list[str]:
    """Run code in a fresh interpreter and give the lines that it prints."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


IS_THERE = 'print(any(name.startswith("torch._dynamo") for name in sys.modules))'


def test_timm_and_torchvision_are_imported_without_it_and_it_compiles_afterwards() -> None:
    code = f"""
import sys
import finetune.model.backbone
{IS_THERE}
import torch
double = torch.compile(lambda x: x + x, backend="eager", fullgraph=True)
print(double(torch.tensor(21)).item())
{IS_THERE}
"""
    assert output_of(code) == ["False", "42", "True"]


def test_what_has_asked_for_it_meanwhile_gets_it_when_it_calls() -> None:
    code = f"""
import sys
from finetune.compiler import compiler_deferred
with compiler_deferred():
    from torch._dynamo.utils import is_compile_supported
    from torch.compiler import disable
    answer = disable(lambda: 42)
{IS_THERE}
print(answer())
import torch._dynamo.utils
print(is_compile_supported("cpu") is torch._dynamo.utils.is_compile_supported("cpu"))
"""
    assert output_of(code) == ["False", "42", "True"]


def test_a_name_that_cannot_wait_brings_it_at_once() -> None:
    code = f"""
import sys
from finetune.compiler import compiler_deferred
with compiler_deferred():
    from torch._dynamo.utils import counters
    {IS_THERE}
import torch._dynamo.utils
print(counters is torch._dynamo.utils.counters)
"""
    assert output_of(code) == ["True", "True"]


def test_an_error_leaves_no_stand_in_behind() -> None:
    code = f"""
import sys
from finetune.compiler import compiler_deferred
try:
    with compiler_deferred():
        raise ImportError
except ImportError:
    {IS_THERE}
"""
    assert output_of(code) == ["False"]


def test_where_it_is_there_already_nothing_stands_in_for_it() -> None:
    code = """
import sys
import torch._dynamo
from finetune.compiler import compiler_deferred
real = sys.modules["torch._dynamo"]
with compiler_deferred():
    print(sys.modules["torch._dynamo"] is real)
"""
    assert output_of(code) == ["True"]
