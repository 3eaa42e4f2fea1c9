"""Calls the compiled kernels on tensors that they can read: contiguous, on the CPU, float32 or bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.kernels import Kernel, kernel

_SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def kernel_for(name: str, *tensors: Tensor) -> Kernel | None:
    """The kernel for these tensors, all of one dtype; None where torch has to do."""
    dtype = tensors[0].dtype
    suffix = _SUFFIXES.get(dtype)
    if suffix is None:
        return None
    for tensor in tensors:
        if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return None
    return kernel(f"{name}_{suffix}")


def has_kernel(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether tensors of that dtype and device have a kernel."""
    suffix = _SUFFIXES.get(dtype)
    return device.type == "cpu" and suffix is not None and kernel(f"{name}_{suffix}") is not None
