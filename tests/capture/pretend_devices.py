"""Reduces one batch of a model whose layers are on two devices that a CPU only pretends to have.

Fake tensors on them have shapes but no numbers, and refuse whatever would mix devices. Run as a process of its own,
because torch cannot forget a device: `python pretend_devices.py bfloat16`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from tiny import TEXTS, byte_tokenizer, tiny
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from stratoscope.model.find import find_sites
from stratoscope.names import NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.input.batches import Batch, make_batch
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.prompts import Prompt


def spread(model: Any, places: list[torch.device]) -> Any:
    """The model with fake weights, each layer's on its device."""
    for number, layer in enumerate(model.model.layers):
        for part in layer.modules():
            for name, weight in part.named_parameters(recurse=False):
                fake = torch.empty(weight.shape, dtype=weight.dtype, device=places[number])
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
    return model


def on(device: torch.device, batch: Batch) -> Batch:
    """The batch as fake tensors on a device; its prompts' own rows as indices, not as slices."""
    rows = tuple(torch.zeros(1 + number, dtype=torch.int64, device=device) for number in range(len(TEXTS)))
    ids = torch.zeros(batch.input_ids.shape, dtype=torch.int64, device=device)
    return replace(batch, input_ids=ids, mask=ids, user_rows=rows)


def main(dtype: torch.dtype) -> None:
    _setup_privateuseone_for_python_backend("pretend")
    places = [torch.device("pretend", number) for number in (0, 0, 1)]
    model = tiny("Llama", dtype)
    sites = find_sites(model, torch.arange(3, 20)[None])
    prompts = [encode(Prompt(text, text=text), byte_tokenizer(), chat=False) for text in TEXTS]
    batch = make_batch(prompts, pad_id=0, padding_side="right", device=torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = on(places[0], batch)
        observer = Observer(spread(model, places), sites, (NORMS, RESIDUAL, PEAKS, PROMPTS), 5)
        for reducer in observer._reducers:
            reducer.begin(batch)
        for number, layer in enumerate(sites.layers):
            before = places[max(number - 1, 0)]  # a block's input still lies where the last one computed
            for site in (layer.block_in, layer.attn_write, layer.middle, layer.neurons, layer.mlp_out, layer.mlp_write,
                         layer.block_out):  # fmt: skip
                assert site is not None
                width = sites.d_ff if site == layer.neurons else sites.d_model
                device = before if site == layer.block_in else places[number]
                observer._receive(site, torch.zeros(batch.rows, width, dtype=dtype, device=device))
        results = {name: value for reducer in observer._reducers for name, value in reducer.result().items()}
    assert results["resid_norm"].shape == (4, batch.rows)
    assert results["peak_write"].shape == (3, batch.rows, 5)
    assert results["prompt_mean"].shape == (3, len(TEXTS), 72)
    print("reduced on", *{str(value.device) for value in results.values()})


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
