"""Products in float32, whatever torch was told about TF32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """While open, matrices of float32 are multiplied in float32."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    try:
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision(before)
