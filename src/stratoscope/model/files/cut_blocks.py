"""8-bit weights whose last block is cut off, as DeepSeek-V3 has: transformers alone spreads their scales evenly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import ModelError
from stratoscope.model.files.contents import stored_tensors
from stratoscope.model.files.model_files import ModelFiles

_SCALE = "_scale_inv"  # the grid of scales of an 8-bit weight is stored under the weight's name with this


@contextmanager
def unpacked_rightly(files: ModelFiles, block: Sequence[int]) -> Iterator[None]:
    """While open, transformers unpacks weights with cut blocks as what they stand for.

    Raises
    ------
    ModelError
        It did not come to that for all of them; the model must not be used.
    """
    from transformers.integrations import finegrained_fp8
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer as Quantizer

    waiting = _with_cut_blocks(files, block)
    if not waiting:
        yield
        return
    done: list[bool] = []

    class Dequantize(finegrained_fp8.Fp8Dequantize):  # type: ignore[misc]
        def _dequantize_one(self, quantized: Tensor, scales: Tensor, output_dtype: Any = None) -> Tensor:
            rows, columns = quantized.shape[-2:]
            below = scales.shape[-2] * block[0] - rows if scales.shape[-2] > 1 else 0
            beside = scales.shape[-1] * block[1] - columns if scales.shape[-1] > 1 else 0
            if below or beside:
                done.append(True)
            whole = torch.nn.functional.pad(quantized.float(), (0, beside, 0, below))
            unpacked: Tensor = super()._dequantize_one(whole, scales, output_dtype)
            return unpacked[..., :rows, :columns].contiguous()

    original = Quantizer.get_load_operations
    Quantizer.get_load_operations = lambda quantizer: {"dequantize": Dequantize}
    try:
        yield
    finally:
        Quantizer.get_load_operations = original
    if len(done) != len(waiting):
        raise ModelError(
            f"the weight {waiting[0]} is not made of whole blocks of {' × '.join(map(str, block))}, and this "
            "version of transformers would unpack it wrongly",
            where=files.name,
            fix="Use the unquantised model, or a GGUF file.",
        )


def _with_cut_blocks(files: ModelFiles, block: Sequence[int]) -> list[str]:
    """Names of the weights that are not made of whole blocks."""
    stored = {name: tensor for path in files.weights for name, tensor in stored_tensors(path, files.name).items()}
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    found = []
    for name, scales in shapes.items():
        weight = shapes.get(name.removesuffix(_SCALE), ()) if name.endswith(_SCALE) else ()
        sizes = zip(weight[-2:], scales[-2:], block, strict=False)
        if any(parts > 1 and size != parts * whole for size, parts, whole in sizes):
            found.append(name.removesuffix(_SCALE))
    return found
