"""One recording: everything that is known and proved before the first batch, then window by window into the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import CaptureError, InputError
from stratoscope.model.find import find_sites
from stratoscope.model.load import LoadedModel
from stratoscope.recorder import receipt as receipts
from stratoscope.recorder.batches import Batch, alike_in_length, make_batch, windows
from stratoscope.recorder.blocks import to_block
from stratoscope.recorder.checks import TokenWatch, check_finite, check_tokens
from stratoscope.recorder.floor import measure_floor, sample
from stratoscope.recorder.observe import Observer, last_logits_only
from stratoscope.recorder.plan import CapturePlan, prompts_sha256
from stratoscope.recorder.prompts import Prompt
from stratoscope.recorder.tokens import TokenisedPrompt, encode
from stratoscope.recorder.verify import verify_trace
from stratoscope.trace.place import is_trace
from stratoscope.trace.reader import open_trace
from stratoscope.trace.schema import Block
from stratoscope.trace.writer import TraceWriter

Progress = Callable[[str, int, int | None], None]

_PROBE_PROMPTS, _PROBE_TOKENS = 2, 64
_WINDOW_BATCHES = 4
_SOFTWARE = ("stratoscope", "torch", "transformers", "tokenizers", "numpy", "zarr")
_POST_NORM_NOTE = {
    "id": "L20",
    "severity": "info",
    "text": "This model norms what its MLP writes, so write norms are nearly the same everywhere: see mlp_out_norm.",
}


class Recording:
    """A model with proved sites, and the prompts it will be recorded on.

    Parameters
    ----------
    loaded
        The model, its tokenizer and what they are.
    prompts
        At least one.
    record, top_k, batch_size, chat
        See `capture`.
    progress
        Called with (stage, done, total or None).

    Raises
    ------
    CaptureError, InputError, ModelError
        A prompt does not fit, or the sites are not found or proved.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Prompt],
        *,
        record: tuple[str, ...],
        top_k: int,
        batch_size: int,
        chat: bool,
        progress: Progress,
    ) -> None:
        self._loaded, self._model, self._tokenizer = loaded, loaded.model, loaded.tokenizer
        self._prompts, self._chat, self._progress = prompts, chat, progress
        self._lengths = self._checked_lengths()
        self._plan = CapturePlan(
            record=record,
            top_k=top_k,
            batch_size=batch_size,
            window=_WINDOW_BATCHES * batch_size,
            chat=chat,
            dtype=loaded.identity["dtype"],
            padding_side=self._tokenizer.padding_side,
            attention=loaded.identity["attention_implementation"],
            prompts=len(prompts),
            tokens=sum(self._lengths),
            prompts_sha256=prompts_sha256(prompts),
        )
        progress("proving the sites", 0, None)
        probe = self._probe()
        self._sites = find_sites(self._model, probe.batch.input_ids.new_tensor(probe.prompts[0].ids.tolist())[None])
        if top_k > self._sites.d_ff:
            raise InputError(
                f"the top-k is {top_k}, but an MLP has {self._sites.d_ff} neurons", fix="Use a smaller one"
            )
        self._observer = Observer(self._model, self._sites, record, top_k)
        self._watch = TokenWatch(self._model)
        self._receipt, arrays = receipts.prove(
            self._model, self._sites, self._observer, self._watch, probe, where=self._name
        )
        self._variables, self._sizes = _shapes(arrays, record)
        self._floors: dict[str, np.ndarray] = {}
        self._options = last_logits_only(self._model)

    def run(
        self,
        out: Path,
        *,
        resume: bool,
        overwrite: bool,
        verify: names.Verify = defaults.VERIFY,
        floor: bool = False,
    ) -> None:
        """Record what is not yet committed; Ctrl-C keeps every window that is done."""
        if floor:
            self._measure_floor(out, resume=resume)
        writer = TraceWriter(
            out,
            attrs=self._attributes(),
            layers=range(len(self._sites.layers)),
            sizes=self._sizes,
            variables=self._variables,
            fixed=self._floors,
            overwrite=overwrite,
            resume=resume,
        )
        try:
            with writer:
                if not writer.complete:
                    with self._observer, self._watch:
                        self._record(writer)
                    self._finish(writer, verify)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{writer.committed_prompts} of {len(self._prompts)} prompts are kept; resume goes on there")
            raise

    # --- before -----------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return str(self._loaded.identity["name"])

    def _checked_lengths(self) -> list[int]:
        """Tokens of each prompt; CaptureError naming those the model's context cannot hold."""
        self._progress("reading the prompts", 0, len(self._prompts))
        lengths = [len(encode(prompt, self._tokenizer, chat=self._chat).ids) for prompt in self._prompts]
        context = self._loaded.identity.get("context")
        long = [index for index, length in enumerate(lengths) if context and length > context]
        if long:
            others = f" (and {len(long) - 1} more prompts are too long)" if len(long) > 1 else ""
            raise CaptureError(
                f"has {lengths[long[0]]} tokens, the model's context holds {context}{others}",
                where=f"prompt {self._prompts[long[0]].id}",
                fix="Shorten it, split it, or leave it out",
            )
        return lengths

    def _probe(self) -> receipts.Probe:
        """The longest of the first prompts and another one, cut short: what is proved is proved on these."""
        first = range(min(self._plan.batch_size, len(self._prompts)))
        chosen = sorted(first, key=lambda index: -self._lengths[index])[:_PROBE_PROMPTS]
        prompts = [_cut(self._encoded(index)) for index in chosen]
        ids = [self._prompts[index].id for index in chosen]
        return receipts.Probe(ids, prompts, self._batch(prompts), self._plan.padding_side)

    def _measure_floor(self, out: Path, *, resume: bool) -> None:
        """Measure the noise floor, or take it from the trace that is gone on with: a trace has one."""
        earlier = open_trace(out) if resume and is_trace(out) else None
        facts = earlier.attrs["receipt"].get("noise_floor") if earlier is not None else None
        if earlier is not None and facts:
            self._floors = {
                str(name): value.values
                for name, value in earlier.data_vars.items()
                if names.QUANTITIES[str(name)].group == names.FLOOR
            }
            limits = facts["limits"]
        else:
            self._progress("measuring the noise floor", 0, None)
            chosen = sample(self._lengths)
            floor = measure_floor(
                self._model,
                self._sites,
                self._observer,
                [self._encoded(index) for index in chosen],
                [self._prompts[index].id for index in chosen],
                record=self._plan.record,
                top_k=self._plan.top_k,
                padding_side=self._plan.padding_side,
            )
            wanted = map(names.floor_name, self._variables)
            self._floors = {name: floor.arrays[name] for name in wanted if name in floor.arrays}
            facts, limits = {**floor.facts, "limits": floor.limits}, floor.limits
        self._receipt = {**self._receipt, "noise_floor": facts, "limits": [*self._receipt["limits"], *limits]}

    def _attributes(self) -> dict[str, Any]:
        widths = {"d_model": self._sites.d_model, "d_ff": self._sites.d_ff, "n_layers": len(self._sites.layers)}
        post_norm = any(layer.post_norm for layer in self._sites.layers)
        return {
            "source": names.REAL,
            "token_spelling": "text",
            "model": {**self._loaded.identity, **widths},
            "tokenizer": self._loaded.tokenizer_identity,
            "plan": self._plan.to_json(),
            "receipt": receipts.finished(self._receipt, batches=0, tokens=0, observer=self._observer),
            "notes": [_POST_NORM_NOTE] if post_norm else [],
            "software": {name: version(name) for name in _SOFTWARE},
        }

    # --- batch by batch -----------------------------------------------------------------------------------------------

    def _record(self, writer: TraceWriter) -> None:
        for window in windows(len(self._prompts), self._plan.window, writer.committed_prompts):
            writer.append(self._window(window))

    def _finish(self, writer: TraceWriter, verify: names.Verify) -> None:
        """Replay the whole trace if that is wanted, and mark it as complete."""
        verified = None
        if verify == "full":
            writer.commit()
            verified = verify_trace(self._model, self._sites, open_trace(writer.path), self._progress)
        # whatever an interrupted run committed had passed the same checks, in the same batches
        every = windows(len(self._prompts), self._plan.window)
        receipt = receipts.finished(
            self._receipt,
            batches=sum(-(-len(window) // self._plan.batch_size) for window in every),
            tokens=sum(self._lengths),
            observer=self._observer,
            verified=verified,
        )
        writer.finish(receipt=receipt)

    def _window(self, window: range) -> Block:
        """Record a run of prompts in batches of similar length, and put them back into file order."""
        tokenised = [self._encoded(index) for index in window]
        found: dict[int, dict[str, np.ndarray]] = {}
        for chosen in alike_in_length([len(prompt.ids) for prompt in tokenised], self._plan.batch_size):
            self._progress("recording", window.start + len(found), len(self._prompts))
            found |= zip(chosen, self._per_prompt(chosen, window, tokenised), strict=True)
        self._progress("recording", window.stop, len(self._prompts))
        return to_block([self._prompts[index] for index in window], tokenised, [found[i] for i in range(len(window))])

    def _per_prompt(
        self, chosen: Sequence[int], window: range, tokenised: Sequence[TokenisedPrompt]
    ) -> Iterator[dict[str, np.ndarray]]:
        """One batch: its quantities, checked, prompt by prompt."""
        prompts = [tokenised[index] for index in chosen]
        batch = self._batch(prompts)
        arrays, _ = self._observer.record(batch, **self._options)
        check_tokens(self._watch, batch, prompts)
        check_finite(arrays, [self._prompts[window[index]].id for index in chosen], prompts)
        ends = np.cumsum([len(prompt.ids) for prompt in prompts])
        for number, prompt in enumerate(prompts):
            tokens = slice(ends[number] - len(prompt.ids), ends[number])
            yield {name: _one_prompt(name, arrays[name], number, tokens) for name in self._variables}

    def _batch(self, prompts: Sequence[TokenisedPrompt]) -> Batch:
        known = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, 0)
        pad_id = next(token for token in known if token is not None)
        return make_batch(
            prompts, pad_id=pad_id, padding_side=self._plan.padding_side, device=next(self._model.parameters()).device
        )

    def _encoded(self, index: int) -> TokenisedPrompt:
        return encode(self._prompts[index], self._tokenizer, chat=self._chat)


def _cut(prompt: TokenisedPrompt) -> TokenisedPrompt:
    part = slice(_PROBE_TOKENS)
    return replace(prompt, ids=prompt.ids[part], texts=prompt.texts[part], spans=prompt.spans[part])


def _shapes(arrays: Mapping[str, np.ndarray], record: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The quantities that this model gives, and the lengths of their fixed dimensions."""
    wanted = {quantity.name for quantity in names.quantities_of(list(record))}
    variables = [name for name in names.QUANTITIES if name in arrays and name in wanted]
    sizes: dict[str, int] = {}
    for name in variables:
        sizes |= dict(zip(names.QUANTITIES[name].dims[1:], arrays[name].shape[1:], strict=True))
    return variables, sizes


def _one_prompt(name: str, values: np.ndarray, number: int, tokens: slice) -> np.ndarray:
    return values[number : number + 1] if names.QUANTITIES[name].dims[0] == names.PROMPT else values[tokens]
