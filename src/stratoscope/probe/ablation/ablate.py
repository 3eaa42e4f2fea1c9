"""The verb `ablate`: a model rerun with neurons and heads set to other values, beside random ones like them."""

from __future__ import annotations

import xarray as xr

from stratoscope.probe.ablation.asked import AblateArguments
from stratoscope.progress import silent
from stratoscope.recorder.arguments import prompts_as_given, taking
from stratoscope.recorder.loading import loaded_model


@taking(AblateArguments)
def ablate(asked: AblateArguments) -> xr.Dataset:
    """Set neurons and heads to other values in memory, for one forward, and read off the logits what that changes.

    Nothing is generated and no weight is touched: values are set on the way into the last linear map of an MLP or of
    attention, in rows of a batch. Effects are what ablating takes away, so that a positive one promotes its target.

    Parameters
    ----------
    model, prompts, column, chat, date, batch_size, dtype, device, device_map, revision, trust_remote_code, tokenizer
        As those of `capture`.
    neurons
        Pairs (layer, neuron), or texts such as "22:394" or "blocks.22.mlp.hook_post:394". In a mixture of experts
        neurons are numbered through: neuron i of expert e is e × width + i, and those of the shared expert come last.
    heads
        Pairs (layer, head), or texts such as "5:3" or "blocks.5.attn.hook_z:3".
    how
        What they are set to. "mean": their mean over the tokens of all prompts, first tokens left out. "resample": what
        they are in another prompt, at the same distance from its end; `draws` prompts are drawn for each, of those that
        reach as far back. "zero": 0.
    positions
        "all" tokens of each prompt but its first; or at its last token alone, the "answer" position.
    first_token
        Whether first tokens are ablated too: what is largest there is no small change.
    targets, against, answer_prefix
        Tokens whose logits are read, as those of `capture`.
    openers
        Beginnings of an answer whose log-odds are read.
    cumulative
        So many are ablated one after the other, in order of their first-order effects on the first target and in
        `draws` random orders. Of the neurons and heads that are named, or, where none is, of all neurons.
    mean_of
        A trace of the same model, to whose means neurons are set; by default those of these prompts.
    draws, seed
        How many random neurons, heads, directions and orders, and other prompts, are drawn, and from which seed.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    xarray.Dataset
        `set` runs over what is ablated: each neuron and head by itself, and all of them. `measured`, `first_order` and
        `direct` have the dimensions (set, prompt, target); `control` has (control_kind, set, draw, prompt, target), of
        random neurons and heads like them and of random directions of equal norm; `floor` is what another batch size
        changes. Means over prompts with 95 % t intervals end in `_mean`, `_low` and `_high`; `opener_…` are the same of
        log-odds. With `cumulative` also `faithfulness` and `completeness`, (order, step, target). The attributes say
        what was done and, in `found`, what came out.

    Raises
    ------
    InputError, ModelError, CaptureError
        The model has no such neuron or head, something asked for cannot be done, or logits are not finite.

    Examples
    --------
    >>> import stratoscope
    >>> prompts = ["The fire is out.", "The song is out.", "No rain today."]
    >>> found = stratoscope.ablate("MODEL", prompts, neurons=[(1, 3)], heads=[(0, 2)], targets=["a"], draws=2)
    >>> found["measured"].dims
    ('set', 'prompt', 'target')
    >>> found["set"].values.tolist()
    ['L1 n3', 'head 2 of L0', 'all of them']
    """
    settings = asked.settings()
    prompts = prompts_as_given(asked.prompts, asked.column, asked.progress)
    loaded = loaded_model(asked)
    from stratoscope.probe.ablation.labelled import labelled
    from stratoscope.probe.ablation.run import run

    return labelled(*run(loaded, prompts, settings, asked.progress or silent), settings)
