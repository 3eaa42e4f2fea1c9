"""The verbs `capture` and `plan_capture`: a model and prompts become a trace, and what that would take.

What is asked is checked, and the prompts are read, before torch is imported: mistakes show at once.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from stratoscope.progress import silent
from stratoscope.recorder.answers.settings import checked_day
from stratoscope.recorder.arguments import CaptureArguments, PlanArguments, RecordingSettings, taking
from stratoscope.recorder.estimate.estimate import Estimate
from stratoscope.recorder.loading import loaded_model
from stratoscope.recorder.plan import prompts_sha256
from stratoscope.recorder.prompts.prompt import PromptList
from stratoscope.trace.format import place
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.resume import planned, refuse_complete, refuse_other_plan

if TYPE_CHECKING:
    from stratoscope.recorder.recording import Recording


@taking(CaptureArguments)
def capture(asked: CaptureArguments) -> xr.Dataset:
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
    targets
        Tokens whose logits the groups logits and effects explain, where the answer begins: one token each, leading
        spaces count. By default each prompt's likeliest token against its second.
    against
        The token that each target is compared with; by default the mean over the vocabulary.
    answer_prefix
        Text behind each prompt, as the beginning of its answer: behind what the chat template writes, or behind a text.
    positions
        "answer": the strongest neurons are explained at the last token of each prompt, and lenses read its last four;
        "all": at every token, those of answers too. Lenses then take about ten times as long as all else.
    lens
        A fitted lens of the model, of a file of `fit-lens` or in TransformerLens's form: with the group lens it reads,
        with its parts, beside the logit lens.
    baseline
        What total effects are counted from: "zero", or "mean", the means over the words of the prompts.
    mean_of
        A trace of the same model that holds these means (its group prompts, or neurons), of heads none; without it all
        prompts are run once before anything is recorded.
    effect_steps
        At how many points of the way from the baseline gradients are taken, a layer at a time: 1 is first order, more
        make effects of whole MLPs and attentions agree with removing them, and cost that many forwards of every layer.
    calibration
        How many neurons, MLPs, heads and attentions, each at one token, are really ablated on up to 16 of the prompts,
        set to zero and to their means, to say how far total effects agree: `attrs["receipt"]["calibration"]`. 0 = none.
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
        an interrupted recording that was to replace it waits beside it, and `resume` goes on with it: with the same
        plan, or not at all. Where nothing was committed, there is no plan to keep, and it begins as is asked now.
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
    settings, target = asked.settings(), Path(asked.out).absolute()
    begun = place.recorded_at(target)
    if asked.resume and asked.date is None:
        settings = replace(settings, day=checked_day(planned(begun, "date")))
    place.refuse_without_parent(target)
    place.refuse_occupied(target, overwrite=asked.overwrite, resume=asked.resume)
    prompts = asked.read_prompts()
    if asked.resume and not place.is_trace(begun) and asked.progress:
        asked.progress("nothing was committed: beginning anew, as asked now", 0, None)
    if asked.resume:
        known = {**settings.planned, "prompts_sha256": prompts_sha256(prompts)}
        refuse_other_plan(begun, known)
        if asked.verify == "full":
            refuse_complete(begun)
    _recording(asked, settings, prompts).run(
        Path(asked.out), resume=asked.resume, overwrite=asked.overwrite, verify=asked.verify, floor=asked.floor
    )
    return open_trace(asked.out)


@taking(PlanArguments)
def plan_capture(asked: PlanArguments) -> Estimate:
    """Say what `capture` would take of disk, memory and time, by recording its largest batch and a typical one.

    Nothing is left of what is recorded for it. A replay of everything (`verify="full"`) and a noise floor would come
    on top.

    Parameters
    ----------
    model, prompts, out, column, record, top_k, dtype, device, device_map, batch_size, chat, date, generate, generation
    seed, openers, refusal_patterns, targets, against, answer_prefix, positions, lens, baseline
    mean_of, effect_steps, calibration, part, revision, trust_remote_code
    tokenizer, progress
        As those of `capture`; nothing is written to `out`, but its disk is measured.

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
    settings, target, start = asked.settings(), Path(asked.out).absolute(), time.perf_counter()
    place.refuse_without_parent(target)
    recording = _recording(asked, settings, asked.read_prompts())
    from stratoscope.recorder.estimate.reckon import estimate

    return estimate(recording, target, time.perf_counter() - start, asked.progress or silent)


def _recording(asked: PlanArguments, settings: RecordingSettings, prompts: PromptList) -> Recording:
    loaded, progress = loaded_model(asked), asked.progress or silent
    from stratoscope.recorder.recording import Recording

    return Recording(loaded, prompts, **vars(settings), remarks=prompts.remarks, progress=progress)
