"""The verbs `capture` and `plan_capture`: a model and prompts become a trace, and what that would take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Day
from pathlib import Path
from typing import Any

import xarray as xr
from torch import nn

from stratoscope import defaults, names
from stratoscope.errors import InputError, refuse_unknown
from stratoscope.model.devices import DeviceMap
from stratoscope.model.from_object import given_model
from stratoscope.model.load import LoadedModel, load_model
from stratoscope.progress import Progress, silent
from stratoscope.recorder.answers.settings import Answers, answers_of, checked_day
from stratoscope.recorder.arguments import dtype_name, file_or_list
from stratoscope.recorder.estimate.estimate import Estimate
from stratoscope.recorder.estimate.reckon import estimate
from stratoscope.recorder.parts import checked_part
from stratoscope.recorder.plan import prompts_sha256
from stratoscope.recorder.prompts.prompt import Prompt, PromptList, given_prompts, read_prompts
from stratoscope.recorder.recording import Recording
from stratoscope.trace.arguments import chosen, whole
from stratoscope.trace.format import place
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.resume import planned, refuse_complete, refuse_other_plan


def capture(
    model: str | Path | nn.Module,
    prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]],
    out: str | Path,
    *,
    column: str | None = None,
    record: str | Iterable[str] = defaults.RECORD,
    top_k: int = defaults.TOP_K,
    dtype: str | None = None,
    device: str | None = None,
    device_map: DeviceMap | None = None,
    batch_size: int = defaults.BATCH_SIZE,
    chat: bool = False,
    date: str | None = None,
    generate: int = defaults.GENERATE,
    generation: Mapping[str, Any] | None = None,
    seed: int = defaults.SEED,
    openers: Sequence[str] | None = None,
    refusal_patterns: str | Path | Sequence[str] | None = None,
    verify: names.Verify = defaults.VERIFY,
    floor: bool = False,
    part: tuple[int, int] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Record what a model does with every token of every prompt.

    Before anything is recorded, the places that are observed are found and proved: adding the recorded writes gives
    each block's output bit for bit, and the logits are those of the unobserved model. The proof is stored in the trace.

    Parameters
    ----------
    model
        Hub name, local folder or GGUF file; or a Hugging Face model in evaluation mode, with `tokenizer`.
    prompts
        A file of prompts (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` or `.txt`); or texts, `Prompt`s, or objects as
        in a line of a `.jsonl` file.
    out
        The trace directory.
    column
        The column of the file that holds the texts or messages, where it is not called `text` or `messages`; columns
        that are then not used are named in a note of the trace.
    record
        Record groups: any of `names.RECORD_GROUPS`, listed or as text, "norms,peaks".
    top_k
        Peaks per token and layer.
    dtype, device, device_map, revision, trust_remote_code
        See `model.load.load_model`.
    batch_size
        The most prompts per forward; fewer where a model's values would depend on the prompts beside them.
    chat
        Whether raw text is put into the chat template; `messages` always are.
    date
        The day that a chat template is told that writes the date, as "2026-01-31"; by default today, and where a
        recording is resumed, the day of its beginning.
    generate
        The most tokens of an answer that the model writes and that are recorded with the prompt, as they are written;
        0 = none. Which of them opened as a refusal is recorded too.
    generation
        Settings of transformers' `GenerationConfig` that choose tokens, as `{"do_sample": True, "temperature": 0.7}`.
        Without any, the likeliest token is taken each time: neither the model's own sampling settings nor transformers'
        defaults are used. The model's own end-of-text tokens end an answer.
    seed
        Of sampling.
    openers
        Beginnings of an answer whose log-odds are recorded, also where nothing is generated; by default
        `defaults.OPENERS` where something is.
    refusal_patterns
        How a refusal opens: a text file with one pattern a line, or the patterns; English ones without it.
    verify
        "sample": replay two short prompts with eager attention and other code before anything is recorded. "full":
        replay every prompt of the finished trace too, as it is read back from disk; a trace that is already complete
        cannot be verified so.
    floor
        Measure on a few prompts how much each quantity changes under another batch size, padding side and dtype, and
        store it as `floor_batch_<quantity>`, `floor_padding_…` and `floor_dtype_…` of each layer.
    part
        Record only a part of the prompts, as (2, 5): the second of five. Each is given the same prompts and settings,
        records whole runs of prompts that are batched together, of about the same number of tokens, and has a trace of
        its own; `merge` makes one trace of them, with the values of one recording.
    resume, overwrite
        Go on with an interrupted recording, or replace a trace. The former trace stays until the new one is complete;
        an interrupted recording that was to replace it waits beside it, and `resume` goes on with it.
    tokenizer
        Tokenizer of a model object.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    xarray.Dataset
        The trace, opened lazily.

    Raises
    ------
    InputError, ModelError, CaptureError, TraceError
        The input cannot be used, the model's sites cannot be found, what would be recorded is not what happened, or
        the trace cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> prompts = ["The fire is out.", "The song is out."]
    >>> trace = stratoscope.capture("MODEL", prompts, "run.trace")  # a folder, a GGUF file, or a name of the Hub
    >>> trace["mlp_write_ratio"].dims
    ('token', 'layer')
    >>> trace.attrs["receipt"]["logits_bit_identical"]
    True
    """
    refuse_unknown(verify, names.VERIFY, "verification")
    if resume and overwrite:
        raise InputError("resume keeps what overwrite would replace", fix="Ask for one of the two.")
    target = Path(out).absolute()
    begun = place.recorded_at(target)
    day = checked_day(date) or (checked_day(planned(begun, "date")) if resume else None)
    answers = answers_of(generate, generation, seed, openers, refusal_patterns)
    asked = _Asked.of(record, top_k, batch_size, chat, answers, checked_part(part), day)
    say = progress or silent
    place.refuse_without_parent(target)
    place.refuse_occupied(target, overwrite=overwrite, resume=resume)
    say("reading the prompts", 0, None)
    found = _prompts(prompts, column)
    if resume:  # what is known before the model is loaded, which may take long
        known: dict[str, Any] = {"record": asked.record, "top_k": top_k, "batch_size": batch_size, "chat": chat}
        known |= {"generate": generate or None, "seed": seed if generate else None, "part": asked.part}
        refuse_other_plan(begun, {**known, "prompts_sha256": prompts_sha256(found)})
        if verify == "full":
            refuse_complete(begun)
    loaded = _loaded(model, tokenizer, dtype, device, device_map, revision, trust_remote_code, say)
    asked.recording(loaded, found, say).run(Path(out), resume=resume, overwrite=overwrite, verify=verify, floor=floor)
    return open_trace(out)


def plan_capture(
    model: str | Path | nn.Module,
    prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]],
    out: str | Path,
    *,
    column: str | None = None,
    record: str | Iterable[str] = defaults.RECORD,
    top_k: int = defaults.TOP_K,
    dtype: str | None = None,
    device: str | None = None,
    device_map: DeviceMap | None = None,
    batch_size: int = defaults.BATCH_SIZE,
    chat: bool = False,
    date: str | None = None,
    generate: int = defaults.GENERATE,
    generation: Mapping[str, Any] | None = None,
    seed: int = defaults.SEED,
    openers: Sequence[str] | None = None,
    refusal_patterns: str | Path | Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> Estimate:
    """Say what `capture` would take of disk, memory and time, by recording its largest batch and a typical one.

    Nothing is left of what is recorded for it. A replay of everything (`verify="full"`) and a noise floor would come
    on top.

    Parameters
    ----------
    model, prompts, out, column, record, top_k, dtype, device, device_map, batch_size, chat, date, generate, generation
    seed, refusal_patterns
        As those of `capture`; nothing is written to `out`, but its disk is measured.
    openers, part, revision, trust_remote_code, tokenizer, progress
        As those of `capture`.

    Returns
    -------
    Estimate
        Bytes of disk, memory and accelerator memory and seconds, of the model alone, of each record group and of the
        whole; what this machine has; whether it fits, and what to leave out if not.

    Raises
    ------
    InputError, ModelError, CaptureError, TraceError
        `capture` would refuse this as well.

    Examples
    --------
    >>> import stratoscope
    >>> estimate = stratoscope.plan_capture("MODEL", ["The fire is out.", "The song is out."], "run.trace")
    >>> estimate.fits, estimate.prompts, list(estimate.groups)
    (True, 2, ['norms', 'residual', 'peaks', 'prompts'])
    """
    answers = answers_of(generate, generation, seed, openers, refusal_patterns)
    asked = _Asked.of(record, top_k, batch_size, chat, answers, checked_part(part), checked_day(date))
    say, start = progress or silent, time.perf_counter()
    target = Path(out).absolute()
    place.refuse_without_parent(target)
    say("reading the prompts", 0, None)
    found = _prompts(prompts, column)
    loaded = _loaded(model, tokenizer, dtype, device, device_map, revision, trust_remote_code, say)
    recording = asked.recording(loaded, found, say)
    return estimate(recording, target, time.perf_counter() - start, say)


@dataclass(frozen=True)
class _Asked:
    """What is asked of a recording, checked."""

    record: tuple[str, ...]
    top_k: int
    batch_size: int
    chat: bool
    answers: Answers
    part: tuple[int, int] | None
    day: Day | None

    @classmethod
    def of(
        cls,
        record: str | Iterable[str],
        top_k: int,
        batch_size: int,
        chat: bool,
        answers: Answers,
        part: tuple[int, int] | None,
        day: Day | None,
    ) -> _Asked:
        groups = chosen(record, names.RECORD_GROUPS, "record")
        top_k, batch_size = whole(top_k, "top_k"), whole(batch_size, "batch_size")
        for name, value in (("top-k", top_k), ("batch size", batch_size)):
            if value < 1:
                raise InputError(f"the {name} is {value}", fix="Use 1 or more.")
        return cls(groups, top_k, batch_size, chat, answers, part, day)

    def recording(self, loaded: LoadedModel, prompts: PromptList, progress: Progress) -> Recording:
        return Recording(loaded, prompts, **vars(self), remarks=prompts.remarks, progress=progress)


def _loaded(
    model: str | Path | nn.Module,
    tokenizer: Any,
    dtype: str | None,
    device: str | None,
    device_map: DeviceMap | None,
    revision: str | None,
    trust_remote_code: bool,
    progress: Progress,
) -> LoadedModel:
    options: dict[str, Any] = {
        "dtype": dtype_name(dtype),
        "device": device,
        "device_map": device_map,
        "revision": revision,
    }
    if not isinstance(model, nn.Module):
        return load_model(os.fspath(model), **options, trust_remote_code=trust_remote_code, progress=progress)
    for name, value in options.items():
        if value is not None:
            raise InputError(f"a model object has its own {name}", fix=f"Leave {name} out.")
    return given_model(model, tokenizer)


def _prompts(prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]], column: str | None) -> PromptList:
    prompts = file_or_list(prompts)
    if isinstance(prompts, (str, Path)):
        return read_prompts(prompts, column=column)
    if column is not None:
        raise InputError("column names a column of a file, and the prompts are no file", fix="Leave column out.")
    return given_prompts(prompts)
