"""The verb `fit_lens`: a Jacobian lens of a model, fitted on texts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from stratoscope.errors import InputError
from stratoscope.probe.lens.asked import FEWEST_TOKENS, FitLensArguments, unfinished
from stratoscope.progress import silent
from stratoscope.recorder.arguments import taking
from stratoscope.recorder.loading import loaded_model
from stratoscope.trace.info.facts import info

_DTYPE = "float32"


@taking(FitLensArguments)
def fit_lens(asked: FitLensArguments) -> dict[str, Any]:
    """Fit a Jacobian lens: what the residual stream at each depth does, on average, to the one behind the last block.

    J of a depth is ∂ of what the last block gives by what stands at that depth, summed over the same and later tokens,
    averaged over tokens and prompts. The first 16 tokens of a prompt and its last are left out; a prompt of fewer than
    18 tokens is left out and counted. Halves of the prompts, and each corpus, are kept apart in the file, so that what
    depends on the texts can be told from what does not.

    Parameters
    ----------
    model
        Hub name, local folder or GGUF file; or a Hugging Face model in evaluation mode, with `tokenizer`.
    prompts
        A corpus: a file of texts or a list, as those of `capture`; or several, by name: `{"news": "news.jsonl", …}`.
    out
        The file to write.
    rank
        So many directions of the output instead of all: those that carry most of the logits on these texts. It takes
        that much less time and room; what is lost is measured.
    max_tokens
        The most tokens of a prompt that are run; longer ones are cut.
    column, chat
        As those of `capture`.
    dtype
        By default float32, whatever the checkpoint has: in half precision gradients are rough.
    device, device_map, revision, trust_remote_code, tokenizer
        As those of `capture`.
    resume, overwrite
        Go on with a fit that was interrupted, which has lost at most one prompt; or replace the file. The former stays
        until the new one is complete.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    dict
        What is in the file, as `info` says it.

    Raises
    ------
    InputError, ModelError, CaptureError
        The texts cannot be used, the model's places cannot be found or cannot be differentiated, what a token becomes
        depends on later ones, or the file may not be written.

    Examples
    --------
    >>> import stratoscope
    >>> texts = [f"The fire is out. {number} songs are out. No rain today. " * 4 for number in range(2)]
    >>> facts = stratoscope.fit_lens("MODEL", texts, "model.lens")
    >>> facts["kind"], facts["prompts"], facts["skipped"]
    ('jacobian', 2, {'first': 16, 'last': 1})
    """
    asked.check()
    out, progress = Path(asked.out), asked.progress or silent
    if out.exists() and not asked.overwrite:
        _refuse_present(out, resume=asked.resume)
    corpora = asked.corpora()
    by_name = isinstance(asked.model, str | os.PathLike)
    loaded = loaded_model(replace(asked, dtype=_DTYPE) if by_name and asked.dtype is None else asked)
    from stratoscope.probe.lens.corpora import read_corpora
    from stratoscope.probe.lens.fit import Fit

    most = min(asked.max_tokens, loaded.identity.get("context") or asked.max_tokens)
    if most < FEWEST_TOKENS:
        what = f"its context holds {most} tokens, and texts of {FEWEST_TOKENS} are needed"
        raise InputError(what, where=loaded.identity["name"], fix="Take a model of a longer context.")
    texts = read_corpora(corpora, loaded.tokenizer, most=most, chat=asked.chat)
    Fit(loaded, texts, asked, progress).run()
    return info(out)


def _refuse_present(out: Path, *, resume: bool) -> None:
    """Raise where a file is there that may not be replaced; an interrupted fit that was to replace it may go on."""
    from stratoscope.trace.lens_file import read_lens_file

    waits = unfinished(out.absolute())
    if resume and waits.exists() and read_lens_file(waits).facts.get("replaces"):
        return
    what = "it is complete" if resume else "already exists"
    raise InputError(what, where=str(out), fix="Give another name, or --overwrite.")
