"""One recording: everything that is known and proved before the first batch, then window by window into the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope import defaults, names
from stratoscope.errors import InputError
from stratoscope.model.devices import input_device
from stratoscope.model.load import LoadedModel
from stratoscope.model.positions import short_until
from stratoscope.model.search.find import find_sites, limits
from stratoscope.progress import Progress, silent
from stratoscope.recorder.answers.answering import Answering
from stratoscope.recorder.answers.settings import NO_ANSWERS, Answers
from stratoscope.recorder.attributes import trace_attributes
from stratoscope.recorder.batched import BatchedPrompts
from stratoscope.recorder.blocks import of_prompt, shapes_of, to_block
from stratoscope.recorder.disk_needed import least_bytes, refuse_full_disk
from stratoscope.recorder.effects.asked import EffectSettings
from stratoscope.recorder.effects.recording import effects_of
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.notes import notes_on
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.lens.asked import LensSettings
from stratoscope.recorder.lens.lensing import Lensing
from stratoscope.recorder.memory import BatchSplitter, must_fit
from stratoscope.recorder.observe import Observer, forward, last_logits_only
from stratoscope.recorder.plan import CapturePlan, prompts_sha256
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof import receipt as receipts
from stratoscope.recorder.proof.checks import (
    TokenWatch,
    check_finite,
    refuse_impossible,
    refuse_too_long,
    refuse_unknown_tokens,
    vocabulary,
)
from stratoscope.recorder.proof.floor import Floor, floor_of_begun, measure_floor, sample
from stratoscope.recorder.proof.together import find_out, prove_together
from stratoscope.recorder.proof.verify import verify_trace
from stratoscope.recorder.reduce.streams import Target
from stratoscope.recorder.routes.sums import RouteSums
from stratoscope.recorder.targets.asked import TargetSettings
from stratoscope.recorder.targets.targeting import Targeting
from stratoscope.recorder.token_texts import TokenTexts
from stratoscope.trace.format.schema import MAYBE_TOKEN_COORDS, Block
from stratoscope.trace.labels import note
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.writer import TraceWriter

Recorded = tuple[TokenisedPrompt, dict[str, np.ndarray]]  # a prompt with its answer, and its quantities


class Recording:
    """A model with proved sites, and the prompts it will be recorded on.

    Parameters
    ----------
    loaded
        The model, its tokenizer and what they are.
    prompts
        At least one.
    record, top_k, batch_size, chat, part
        See `capture`.
    day
        What a chat template is told; by default today.
    answers
        What is generated and measured of the answers.
    targets
        Whose logits are explained; None where no recorded group does that.
    effects
        How total effects are taken; None where they are not recorded.
    lens
        With which lenses the residual stream is read; None where that is not recorded.
    remarks
        What must be said about how the prompts were read.
    progress
        Called with (stage, done, total or None).

    Attributes
    ----------
    plan : CapturePlan
        What decides the values.
    batched : BatchedPrompts
        The prompts, as tokens and in batches.
    shapes : dict
        Name of each streamed quantity to the shape of its rows.
    variables, sizes
        Names of all other quantities that are recorded, and the lengths of their fixed dimensions.
    devices : list of torch.device
        Where each block computes.
    batch_notes : list of dict
        What is to be said about which prompts run together.

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
        answers: Answers = NO_ANSWERS,
        targets: TargetSettings | None = None,
        effects: EffectSettings | None = None,
        lens: LensSettings | None = None,
        part: tuple[int, int] | None = None,
        remarks: Sequence[str] = (),
        day: date | None = None,
        progress: Progress,
    ) -> None:
        self._loaded, self._model, self._tokenizer = loaded, loaded.model, loaded.tokenizer
        self.prompts, self._progress = prompts, progress
        today = day or date.today()  # one for all, as a prompt is put into tokens more than once
        self._targeting = Targeting(targets, loaded, vocabulary(loaded.model))
        self._lensing = Lensing(lens, loaded)
        self.batched = BatchedPrompts(
            *(prompts, loaded),
            batch_size=batch_size,
            chat=chat,
            day=today,
            answer_prefix=self._targeting.answer_prefix,
            padding_side="left"
            if answers or targets or lens
            else self._tokenizer.padding_side,  # answers begin together
        )
        self._answering = Answering(
            *(answers, loaded, self.batched.pad_id),
            first_logits=targets is not None,
            last_tokens=self._lensing.last_tokens,
        )
        encoded = self._checked_prompts()
        more = self._answering.remarks
        self._notes = [note("L25", "warning" if one.differs else "info", one.text) for one in loaded.unused]
        self._notes += [note("L26", "info", text) for text in remarks]
        self._notes += notes_on(prompts, encoded, self._tokenizer, chat=chat, day=today, more=more)
        self._notes += self._targeting.notes
        dated = any(prompt.dated for prompt in encoded)
        if day and not dated:
            raise InputError("no prompt holds the date, so none can be told", fix="Leave --date out.")
        self.batched.choose(part)
        mine = self.batched.mine  # the others are not recorded
        short = short_until(self._model.config.get_text_config())
        self.plan = CapturePlan(
            record=record,
            top_k=top_k,
            batch_size=batch_size,
            window=self.batched.window,
            chat=chat,
            dtype=loaded.identity["dtype"],
            padding_side=self.batched.padding_side,
            attention=loaded.identity["attention_implementation"],
            prompts=len(prompts),
            tokens=sum(self.batched.lengths),
            prompts_sha256=prompts_sha256(prompts),
            date=today.isoformat() if dated else None,
            part=[*part] if part else None,
            part_prompts=[mine.start, mine.stop] if part else None,
            longest_short=None if short is None else max(0, short - self._answering.follow),
            shortest_long=None if short is None else short + 1,
            **self._answering.plan(),
            **self._targeting.plan(),
        )
        progress("proving the sites", 0, None)
        first = self.batched.first()
        with must_fit("a probe of the first prompts"):
            ids = torch.from_numpy(first[0][1].ids.astype(np.int64))[None].to(input_device(self._model))
            self._sites = self._targeting.of_real_tokens(find_sites(self._model, ids))
            found = find_out(loaded, self._sites, self.batched.batch, self._answering.rehearse, self._answering.follow)
        where = str(loaded.identity["name"])
        refuse_impossible(self._sites, record, top_k, where=where)
        self._watch, self._options = TokenWatch(self._model), last_logits_only(self._model, self._lensing.last_tokens)
        self._targets = self._targeting.of_batches(self._sites.head, self._last_logits)
        lenses = self._lensing.open(self._sites)
        self._observer = Observer(self._model, self._sites, record, top_k, self._targets, lenses)
        self._effects = effects_of(effects, loaded, self._sites, self._targets, self._observer, top_k, record)
        self.plan = replace(self.plan, **self._effects.plan, **self._lensing.plan)
        self._notes += [*self._effects.notes, *self._lensing.notes]
        proved = prove_together(
            *(self._model, self._sites, self._observer, self._watch, self.plan, self._answering.narrowed(found)),
            *(first, self.batched.lengths, self.batched.batch),
            where=where,
        )
        self.plan, self.batch_notes, self._receipt = proved.plan, proved.notes, proved.receipt
        self.batched.batching = self.plan.batching
        self._receipt["limits"] += [*loaded.limits, *limits(self._sites)]
        self._receipt = self._answering.prove(self._receipt, self._observer, proved.probe.batch)
        self._streams = self._observer.streams
        self.shapes, self.devices = self._streams.shapes, self._sites.devices(self._model)
        self.variables, self.sizes = shapes_of(proved.arrays, record)
        self.variables += [*self._answering.variables, *self._targeting.variables, *self._effects.variables]
        self.sizes |= {**self._answering.sizes, **self._targeting.sizes, **self._effects.sizes}
        self._routes = RouteSums(next(self._model.parameters()).dtype)
        self._floors, self._splitter = dict[str, np.ndarray](), BatchSplitter(batch_size)

    def run(
        self, out: Path, *, resume: bool, overwrite: bool, verify: names.Verify = defaults.VERIFY, floor: bool = False
    ) -> None:
        """Record what is not yet committed; Ctrl-C keeps every window that is done."""
        if floor or resume:
            self._take_floor(out, resume=resume, wanted=floor)
        writer = self.writer(out, resume=resume, overwrite=overwrite)
        try:
            with writer:
                if not writer.complete:
                    refuse_full_disk(writer.path, self.least_bytes(writer.committed_prompts))
                    for _ in self.windows(writer):
                        pass
                    self._finish(writer, verify)
        except KeyboardInterrupt as stop:
            kept = f"{writer.committed_prompts} of {len(self.batched.mine)} prompts are kept"
            stop.add_note(f"{kept}; resume goes on there")
            raise

    def writer(self, out: Path, *, resume: bool = False, overwrite: bool = False) -> TraceWriter:
        """A writer of a trace that holds what this recording gives."""
        return TraceWriter(
            out,
            attrs=self._attributes(),
            layers=range(len(self._sites.layers)),
            sizes=self.sizes,
            variables=[*MAYBE_TOKEN_COORDS, *self.variables],
            streams={name: shape.dtype for name, shape in self.shapes.items()},
            fixed=self._floors,
            overwrite=overwrite,
            resume=resume,
        )

    # --- what it will be ----------------------------------------------------------------------------------------------

    def least_bytes(self, done: int = 0) -> dict[str, int]:
        """Bytes that each quantity of the prompts from `done` on takes on disk at least, answers not counted."""
        mine = [self.batched.lengths[index] for index in self.batched.mine]
        return least_bytes(self.shapes, self.variables, self.sizes, mine, done)

    # --- before -----------------------------------------------------------------------------------------------------

    def _checked_prompts(self) -> list[TokenisedPrompt]:
        """The tokens of each prompt; CaptureError naming those the model's context cannot hold."""
        self._progress("reading the prompts", 0, len(self.prompts))
        encoded, ids = self.batched.read(), self.batched.ids
        refuse_unknown_tokens(self._model, encoded, ids)
        self._answering.refuse_unanswerable(self.prompts, encoded)
        self._targeting.refuse_unanswerable(self.prompts, encoded)
        refuse_too_long(encoded, ids, self._loaded.identity.get("context"), self._answering.follow)
        return encoded

    def _take_floor(self, out: Path, *, resume: bool, wanted: bool) -> None:
        """Measure the noise floor, or take it from the trace that is gone on with: a trace has one, or none."""
        floor = floor_of_begun(out, wanted=wanted) if resume else None
        if floor is None and wanted:
            floor = self._measured_floor()
        if floor is not None and floor.facts:
            facts, limits = {**floor.facts, "limits": floor.limits}, [*self._receipt["limits"], *floor.limits]
            self._floors, self._receipt = floor.arrays, {**self._receipt, "noise_floor": facts, "limits": limits}

    def _measured_floor(self) -> Floor:
        self._progress("measuring the noise floor", 0, None)
        chosen = sample(self.batched.lengths)
        prompts, ids = [*map(self.batched.encoded, chosen)], [self.batched.ids[index] for index in chosen]
        return measure_floor(self._model, self._sites, self._observer, prompts, ids, self.plan).of(self.variables)

    def _attributes(self) -> dict[str, Any]:
        receipt = receipts.finished(self._receipt, batches=0, tokens=0, observer=self._observer)
        return trace_attributes(self._loaded, self._sites, self.plan, receipt, [*self._notes, *self.batch_notes])

    # --- batch by batch -----------------------------------------------------------------------------------------------

    def windows(self, writer: TraceWriter) -> Iterator[range]:
        """Record what is not yet committed, run of prompts by run of prompts; each is appended when it is given."""
        found = self._effects.begin(self.batched.all_prompts, writer.attrs["receipt"], self._progress)
        self._receipt = {**self._receipt, **found}
        writer.describe(receipt={**writer.attrs["receipt"], **found})
        texts = TokenTexts(self._tokenizer, writer.attrs)
        self._splitter = BatchSplitter(self.plan.batch_size, writer.attrs.get("receipt"))
        for part in (self._targeting.sums, self._lensing, self._routes):
            part.go_on(writer.attrs.get("receipt"))
        streams = {name: writer.stream(name) for name in self._streams.names}
        with self.observing(streams, writer.path.parent):
            for window in self.batched.windows(writer.committed_prompts):
                block = self._window(window)
                if self._splitter.were_needed or self._targeting.asked or self._lensing.asked or self._routes:
                    writer.describe(receipt=self._found_out(writer.attrs["receipt"]))
                if texts.add({*self._effects.token_ids, *self._targeting.token_ids, *self._lensing.token_ids}):
                    writer.describe(**texts.attribute)
                writer.append(block)
                yield window
        writer.commit()

    @contextmanager
    def observing(self, streams: Mapping[str, Target], folder: Path) -> Iterator[Callable[[Sequence[int]], Block]]:
        """While open, prompts are recorded by the function it gives, called with their indices.

        Streamed rows go to `streams`, or wait in files of `folder` until it is known where they go.
        """
        self._streams.stream_into(streams, folder)
        with self._observer, self._watch:
            yield self._window

    def only(self, record: tuple[str, ...]) -> Recording:
        """The same recording of fewer groups: proved already, and telling nobody how far it is."""
        other = copy(self)
        other._progress, other._splitter = silent, BatchSplitter(self.plan.batch_size)
        other.plan = replace(self.plan, record=record)
        lenses = self._lensing.among(record)
        other._options = last_logits_only(self._model, 1 if lenses is None else self._lensing.last_tokens)
        other._observer = Observer(self._model, self._sites, record, self.plan.top_k, self._targets, lenses)
        other._streams = other._observer.streams
        other.shapes = other._streams.shapes = {name: self.shapes[name] for name in other._streams.names}
        other._effects = self._effects.only(record)
        kept = {one.name for one in names.quantities_of([*record, names.OUTCOME, names.TARGETS])}
        other.variables = [name for name in self.variables if name in kept]
        return other

    sites = property(lambda self: self._sites, doc="The model's proved sites.")
    effects = property(lambda self: self._effects, doc="What is done about total effects.")
    targets = property(lambda self: self._targets, doc="The targets of each batch; None where none are asked for.")
    was_split = property(lambda self: self._splitter.were_needed, doc="Whether a batch was run in parts that fit.")

    def forward(self, chosen: Sequence[int]) -> None:
        """Run these prompts as one batch, unobserved."""
        forward(self._model, self.batched.batch_of(chosen), **self._options)

    def _finish(self, writer: TraceWriter, verify: names.Verify) -> None:
        """Replay the whole trace if that is wanted, and mark it as complete."""
        verified = None
        if verify == "full":
            how = (self._progress, self._beside, self._observer.transport)
            verified = verify_trace(self._model, self._sites, open_trace(writer.folder), *how)
        # whatever an interrupted run committed had passed the same checks, in the same batches
        receipt = receipts.finished(
            self._found_out(self._receipt),
            batches=len(self.batched.batches),
            tokens=writer.committed_tokens,
            observer=self._observer,
            verified=verified,
            recorded=self.variables,
        )
        writer.finish(receipt=receipt)

    def _found_out(self, receipt: receipts.Receipt) -> receipts.Receipt:
        """The receipt with what only the batches have shown."""
        found = self._targeting.sums.into(self._splitter.into(receipt))
        return self._effects.into(self._routes.into(self._lensing.into(found)))

    def _beside(self, number: int) -> tuple[list[int], Batch] | None:
        """The prompts that ran together with one of the trace, itself among them, and their batch; None of answers."""
        first, batch = self.batched.mine.start, self.batched.beside(number)
        alone = len(batch) == 1 or self.plan.generate
        return None if alone else ([one - first for one in batch], self.batched.batch_of(batch))

    def _window(self, window: Sequence[int]) -> Block:
        """Record some prompts in batches of similar length, and put them back into file order."""
        tokenised = [self.batched.encoded(index) for index in window]
        lengths = [len(prompt.ids) for prompt in tokenised]
        found: dict[int, Recorded] = {}
        mine = self.batched.mine
        done = window[0] - mine.start
        with self._streams.window(lengths, answers=self.plan.generate or 0):
            for chosen in self.batched.batching.batches(lengths):
                self._progress("recording", done + len(found), len(mine))
                for part, recorded in self._in_parts(chosen, window, tokenised):
                    found |= zip(part, recorded, strict=True)
            self._progress("recording", done + len(window), len(mine))
            whole, arrays = zip(*(found[place] for place in range(len(window))), strict=True)
            self._streams.settle([len(prompt.ids) for prompt in whole])
        return to_block([self.prompts[index] for index in window], whole, arrays)

    def _in_parts(
        self, chosen: Sequence[int], window: Sequence[int], tokenised: Sequence[TokenisedPrompt]
    ) -> Iterator[tuple[Sequence[int], list[Recorded]]]:
        """One batch, in parts where it does not fit into memory."""
        lengths, ids = [len(prompt.ids) for prompt in tokenised], [self.batched.ids[index] for index in window]
        return self._splitter.run(
            chosen, lengths, ids, lambda part: list(self._per_prompt(part, window, tokenised)), self._forget
        )

    def _forget(self) -> None:
        """Let go of what a forward that failed has left behind."""
        self._observer.forget()
        self._watch.take()

    def _per_prompt(
        self, chosen: Sequence[int], window: Sequence[int], tokenised: Sequence[TokenisedPrompt]
    ) -> Iterator[Recorded]:
        """One batch: its tokens and quantities, checked, prompt by prompt."""
        prompts = [tokenised[index] for index in chosen]
        batch = self.batched.batch(prompts)
        self._streams.batch(chosen)
        ids = [self.batched.ids[window[index]] for index in chosen]
        how = (self._options, self._watch)
        whole, arrays, first = self._answering.record(self._observer, batch, prompts, ids, *how)
        check_finite(arrays, ids, whole, self._observer.undefined)
        self._routes.check(arrays, prompts, whole, ids)
        arrays |= self._answering.outcome(self._observer, prompts, whole, first, self.batched.batch)
        arrays |= self._targeting.outcome(first, arrays, prompts, whole, ids)
        self._lensing.check(arrays, ids)
        arrays |= self._effects.outcome(self._observer, prompts, whole, ids, first, self.batched.batch)
        self._watch.take()  # forwards that are not observed
        ends = np.cumsum([len(prompt.ids) for prompt in whole])
        for number, prompt in enumerate(whole):
            tokens = slice(ends[number] - len(prompt.ids), ends[number])
            yield prompt, {name: of_prompt(name, arrays[name], number, tokens) for name in self.variables}

    def _last_logits(self, batch: Batch) -> Tensor:
        """The logits that predict the answers' first tokens, unobserved."""
        logits: Tensor = forward(self._model, batch, **self._options).logits[:, -1]
        self._watch.take()
        return logits
