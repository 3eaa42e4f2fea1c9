"""Records tiny models on devices that a CPU only pretends to have, and prints as JSON what that took.

Run as a process of its own, with `STRATOSCOPE_KERNELS=0`, because torch cannot forget a device.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pretended import Watch, device, pretend_devices, put
from tiny import TEXTS, byte_tokenizer, tiny
from torch.nn.attention import SDPBackend, sdpa_kernel

from stratoscope.model.search.find import find_sites
from stratoscope.names import ATTENTION, ATTENTION_FULL, NEURONS, NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.answers.generate import Generator
from stratoscope.recorder.attention import rows
from stratoscope.recorder.input.batches import Batch, make_batch
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.observe import Observer, forward
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof.checks import TokenWatch
from stratoscope.recorder.reduce import scratch
from stratoscope.trace.format.shards import as_numbers

TOP_K = 5
GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS, NEURONS, ATTENTION, ATTENTION_FULL)
ALONE = {"Llama": GROUPS, "Qwen2-MoE": (NORMS, PEAKS, PROMPTS, NEURONS)}  # what each is recorded of by itself
FAMILIES = ("Mistral", "GPT-OSS", "BLOOM")  # windows, learned sinks, attention in its own code
IDS = torch.arange(3, 20)[None]
PROMPTS_OF_BATCH = [encode(Prompt(text, text=text), byte_tokenizer(), chat=False) for text in TEXTS[:3]]
LENGTHS = [len(prompt.ids) for prompt in PROMPTS_OF_BATCH]
ANSWER = 3


def batch(on: torch.device) -> Batch:
    """All prompts as one, padded on the left."""
    return make_batch(PROMPTS_OF_BATCH, pad_id=0, padding_side="left", device=on)


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


def added(observed: Forwards, plain: Forwards) -> dict[str, Any]:
    """What observing had the host wait for, and how many operators and views it took."""
    more = {name: getattr(observed, name) - getattr(plain, name) for name in ("waits", "operators", "views")}
    return {"waits": more["waits"], "operators": more["operators"].total(), "views": more["views"].total()}


def worst(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Largest difference of two recordings, relative to values above 1; infinite where they differ in kind."""
    if one.keys() != other.keys():
        return np.inf
    found = 0.0
    for name, values in one.items():
        again = other[name]
        if (values.shape, values.dtype) != (again.shape, again.dtype) or (np.isnan(values) != np.isnan(again)).any():
            return np.inf
        if values.dtype == np.uint16:  # of bfloat16
            values, again = (as_numbers(bits) for bits in (values, again))
        error = np.abs(values.astype(np.float64) - again) / np.maximum(1, np.abs(again))
        found = max(found, float(np.nanmax(error, initial=0)))
    return found


def recorded(observer: Observer, given: Batch) -> tuple[dict[str, Any], Any]:
    """A batch's arrays, streamed ones among them, and the logits."""
    with observer.streams.kept(LENGTHS) as kept:
        arrays, output = observer.record(given)
    return {**arrays, **kept}, output.logits


def prefill(
    family: str, record: tuple[str, ...], watch: Watch, *, dtype: torch.dtype = torch.float32, devices: int = 1
) -> dict[str, Any]:
    """Forwards of a batch on pretended devices against the same on the CPU; the second one's operators count."""
    model = tiny(family, dtype)
    sites = find_sites(model, IDS)
    with Observer(model, sites, record, TOP_K) as observer:
        wanted, _ = recorded(observer, batch(torch.device("cpu")))
    places = [device(number) for number in range(devices)]
    with watch:
        given = batch(places[0])
        put(model, *places)
        with Forwards(model, watch) as plain:
            logits = forward(model, given).logits
        with Observer(model, sites, record, TOP_K) as observer:
            with Forwards(model, watch) as first:
                arrays, again = recorded(observer, given)
            with Forwards(model, watch) as second:
                recorded(observer, given)
        same = bool(torch.equal(logits, again))
    found = added(second, plain)
    waits = added(first, plain)["waits"] | found["waits"]
    return {**found, "waits": waits, "worst": worst(arrays, wanted), "same logits": same}


def generation(family: str, record: tuple[str, ...], watch: Watch) -> dict[str, Any]:
    """Prefill and decode steps of a model that writes answers."""
    model = tiny(family)
    sites = find_sites(model, IDS)
    ids = [str(number) for number in range(len(LENGTHS))]
    found = []

    def run(given: Batch) -> dict[str, Any]:
        generator = Generator(model, byte_tokenizer(), new_tokens=ANSWER, settings={}, seed=0, pad_id=0)
        with Observer(model, sites, record, TOP_K) as observer, TokenWatch(model) as tokens:
            with observer.streams.kept([length + ANSWER for length in LENGTHS]) as kept, Forwards(model, watch) as seen:
                _, arrays, _ = generator.record(observer, given, PROMPTS_OF_BATCH, ids, tokens)
            found.append(seen)
        return {**arrays, **kept}

    wanted = run(batch(torch.device("cpu")))
    with watch:
        put(model, device(0))
        arrays = run(batch(device(0)))
        generator = Generator(model, byte_tokenizer(), new_tokens=ANSWER, settings={}, seed=0, pad_id=0)
        with Forwards(model, watch) as plain:
            generator._run(batch(device(0)), ids, before=lambda *_: None, after=lambda *_: None)
    return {**added(found[-1], plain), "worst": worst(arrays, wanted), "same logits": True}


def planted(watch: Watch) -> dict[str, bool]:
    """Whether each thing for which a host waits is seen."""
    with watch:
        numbers = torch.arange(6, device=device(0))
        things = {
            "item": lambda: numbers[0].item(),
            "tolist": numbers.tolist,
            "bool": lambda: bool((numbers > 2).any()),
            "int": lambda: int(numbers.sum()),
            "nonzero": numbers.nonzero,
            "a mask as index": lambda: numbers[numbers > 2],
            "a mask as place": lambda: numbers.index_put_((numbers > 2,), numbers[:1]),
            "masked_select": lambda: numbers.masked_select(numbers > 2),
            "unique": numbers.unique,
            "bincount": numbers.bincount,
            "equal": lambda: torch.equal(numbers, numbers),
            "cpu": numbers.cpu,
            "to cpu": lambda: numbers.to("cpu"),
            "a copy into the host's memory": lambda: torch.empty(6, dtype=torch.int64).copy_(numbers),
            "a list": lambda: torch.tensor([1, 2], device=device(0)),
            "from the host": lambda: torch.ones(2).to(device(0)),
            "a list as index": lambda: numbers[[0, 2]],
            "repeat_interleave": lambda: numbers.repeat_interleave(numbers),
        }
        seen = {}
        for name, do in things.items():
            watch.start()
            do()
            watch.stop()
            seen[name] = bool(watch.waits)
        watch.start()
        torch.empty(6, dtype=torch.int64).copy_(numbers, non_blocking=True)
        numbers.add(1).topk(2)
        watch.stop()
        return {**seen, "nothing": not watch.waits}


def main() -> None:
    """Everything, as one JSON document."""
    pretend_devices()
    torch.set_num_threads(1)
    watch = Watch()
    seen = planted(watch)
    found = {f"{family}, all groups": prefill(family, GROUPS, watch) for family in FAMILIES}
    for family, groups in ALONE.items():
        for group in groups:
            record = (NORMS, group) if group == NEURONS else (group,)
            found[f"{family}, {group}"] = prefill(family, record, watch)
    for family in ("Llama", "GPT2"):
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{family} {str(dtype).removeprefix('torch.')}, norms and peaks"
            found[name] = prefill(family, (NORMS, RESIDUAL, PEAKS), watch, dtype=dtype)
    found["Llama bfloat16, two devices"] = prefill("Llama", GROUPS, watch, dtype=torch.bfloat16, devices=2)
    for family, groups in {"Llama": (ATTENTION, ATTENTION_FULL), "Qwen2-MoE": (NORMS, PEAKS, PROMPTS, NEURONS)}.items():
        found[f"{family}, generating"] = generation(family, groups, watch)
    scratch._BYTES_ELSEWHERE = rows._CHUNK_ELEMENTS_ELSEWHERE = 1  # 16 rows a piece
    found["Llama, in pieces"] = prefill("Llama", GROUPS, watch)
    json.dump({"seen": seen, "runs": found}, sys.stdout)


if __name__ == "__main__":
    with sdpa_kernel(
        SDPBackend.MATH
    ):  # the only one that a pretended device has: then forwards are equal to the last bit
        main()
