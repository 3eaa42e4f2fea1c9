"""Records tiny models on devices that a CPU only pretends to have, and prints as JSON what that took.

Run as a process of its own, with `STRATOSCOPE_KERNELS=0`, because torch cannot forget a device.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pretended
import torch
from pretended import Watch, device, pretend_devices, put
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope.model.find import find_sites
from stratoscope.names import ATTENTION, ATTENTION_FULL, NEURONS, NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.answers.generate import Generator
from stratoscope.recorder.input.batches import make_batch
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.observe import Observer, forward
from stratoscope.recorder.prompts import Prompt
from stratoscope.recorder.proof.checks import TokenWatch

TOP_K = 5
GROUPS = {
    "norms": (NORMS,),
    "residual": (RESIDUAL,),
    "peaks": (PEAKS,),
    "norms + peaks": (NORMS, RESIDUAL, PEAKS),
    "prompts": (PROMPTS,),
    "neurons": (NORMS, NEURONS),
    "attention": (ATTENTION,),
    "attention-full": (ATTENTION_FULL,),
}
SUMMARIES = (NORMS, RESIDUAL, PEAKS, PROMPTS)
ALL = (*SUMMARIES, NEURONS, ATTENTION, ATTENTION_FULL)
IDS = torch.arange(3, 20)[None]


def prompts() -> list[Any]:
    """Of different lengths."""
    return [encode(Prompt(text, text=text), byte_tokenizer(), chat=False) for text in TEXTS]


def batch(side: str, *, on: torch.device) -> Any:
    """All prompts as one."""
    return make_batch(prompts(), pad_id=0, padding_side=side, device=on)


class Forwards:
    """While open, sums up what happens in a model's forwards, from the embedding of the tokens on."""

    def __init__(self, model: Any, watch: Watch) -> None:
        self.waits: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self._model, self._watch = model, watch

    def __enter__(self) -> Forwards:
        start = self._model.get_input_embeddings().register_forward_pre_hook(lambda *_: self._watch.start())
        self._hooks = [start, self._model.register_forward_hook(self._end)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _end(self, *_: object) -> None:
        self._watch.stop()
        for name in ("waits", "operators", "views"):
            setattr(self, name, getattr(self, name) + getattr(self._watch, name))


def difference(observed: Forwards, plain: Forwards, layers: int) -> dict[str, Any]:
    """What observing added: for what it waited, and operators a layer."""
    added = {name: getattr(observed, name) - getattr(plain, name) for name in ("waits", "operators", "views")}
    return {"waits": added["waits"]} | {
        name: round(added[name].total() / layers, 2) for name in ("operators", "views")
    } | {"names": dict(added["operators"])}  # fmt: skip


def recorded(model: Any, sites: Any, record: tuple[str, ...], given: Any) -> tuple[dict[str, Any], Any]:
    """A batch's arrays, streamed ones among them, and the logits."""
    with Observer(model, sites, record, TOP_K) as observer, observer.streams.kept([len(one.ids) for one in prompts()]) as kept:  # fmt: skip
        arrays, output = observer.record(given)
    return {**arrays, **kept}, output.logits


def worst(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of two recordings, relative to values above 1; they must be NaN at the same places."""
    assert one.keys() == other.keys()
    found = 0.0
    for name, values in one.items():
        again = other[name]
        assert values.shape == again.shape and values.dtype == again.dtype, name
        assert np.array_equal(np.isnan(values), np.isnan(again)), name
        if values.dtype.kind == "f" and values.size:
            error = np.abs(values.astype(np.float64) - again) / np.maximum(1, np.abs(again))
            found = max(found, float(np.nanmax(error, initial=0)))
    return found


def forwards(family: str, record: tuple[str, ...], watch: Watch, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """One forward of a left-padded batch on one device, against the same on the CPU."""
    model = tiny(family, dtype)
    sites = find_sites(model, IDS)
    wanted, _ = recorded(model, sites, record, batch("left", on=torch.device("cpu")))
    with watch:
        given = batch("left", on=device(0))
        put(model, device(0))
        with Forwards(model, watch) as plain:
            logits = forward(model, given).logits
        with Forwards(model, watch) as observed:
            arrays, again = recorded(model, sites, record, given)
        same = bool(torch.equal(logits, again))
    return difference(observed, plain, len(sites.layers)) | {"worst": worst(arrays, wanted), "same logits": same}


def main() -> None:
    """Everything, as one JSON document."""
    pretend_devices()
    torch.set_num_threads(1)
    watch, found = Watch(), {}
    import sys
    for family in ("Llama", "Qwen2-MoE", "Gemma2", "BLOOM", "GPT-OSS"):
        for name, record in GROUPS.items():
            try:
                found[f"{family}: {name}"] = forwards(family, record, watch)
            except Exception as e:
                import traceback; found[f"{family}: {name}"] = repr(e)[:200] + traceback.format_exc()[-700:]
    for k,v in found.items():
        if isinstance(v,dict): v.pop("names")
        print(k, v)


if __name__ == "__main__":
    main()
