"""The verb `explain`: one prompt recorded, and what promotes and what suppresses its answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.analysis.suppression.suppression import suppression
from stratoscope.errors import UsageError
from stratoscope.progress import Progress
from stratoscope.recorder.capture import capture

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn


def explain(
    model: str | Path | nn.Module,
    prompt: str,
    out: str | os.PathLike[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    against: str | None = None,
    answer_prefix: str | None = None,
    chat: bool = False,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: Any = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Say what promotes and what suppresses the answer to one prompt: `capture` and `suppression` in one step.

    Parameters
    ----------
    model
        Hub name, local folder or GGUF file; or a Hugging Face model in evaluation mode, with `tokenizer`.
    prompt
        Its text.
    out
        The trace to write, in a folder that exists; without it nothing is left on the disk.
    targets
        Tokens whose logits are explained, one token each, the first of them in the Result; by default the token that
        the model finds likeliest, against its second.
    against
        The token that each is compared with; by default the mean over the vocabulary.
    answer_prefix
        Text behind the prompt, as the beginning of its answer.
    chat
        Whether the text is put into the chat template, as a user's message.
    dtype, device, revision, trust_remote_code, tokenizer
        As those of `capture`.
    overwrite
        Whether a trace that is already there may be replaced.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        As `suppression` gives it, of the one prompt; `save_result` writes its page.

    Raises
    ------
    InputError
        A target is not one token, or the trace may not be written.
    ModelError
        The model's logits cannot be explained.

    Examples
    --------
    >>> import stratoscope
    >>> result = stratoscope.explain("MODEL", "The fire is out.", targets=["a"], against="b")
    >>> float(abs(result["sum"]["error"][0]) / result["sum"]["sizes"][0]) < 1e-5
    True
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("there is no text", where="prompt", fix='Give one, such as "How do I sharpen a knife?".')
    with ExitStack() as stack:
        trace = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory())) / "prompt.trace"
        dataset = capture(
            model, [prompt], trace, record=names.OF_TARGETS, targets=targets, against=against,
            answer_prefix=answer_prefix, chat=chat, dtype=dtype, device=device, revision=revision,
            trust_remote_code=trust_remote_code, tokenizer=tokenizer, overwrite=overwrite, progress=progress,
        )  # fmt: skip
        return suppression(dataset, progress=progress).load()
