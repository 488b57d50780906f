"""Tensors are written by safetensors, and what the system says against it is told as it was."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

__all__ = ["save_tensors"]


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file.

    Args:
        tensors: By name; contiguous, and none shares memory with another.
        path: Of the file.
        metadata: Texts that stand in its header.

    Raises:
        OSError: It cannot be written; with the number of the system's error.
    """
    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as error:  # the number stands in its text alone
        told = re.search(r"os error (\d+)", str(error))
        if told is None:
            raise OSError(str(error)) from error
        raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
