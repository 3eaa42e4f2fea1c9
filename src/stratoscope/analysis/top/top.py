"""The verb `top`: the strongest neurons of a prompt, a token or a layer, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.top.elsewhere import SHOWN, found_again, other_tokens
from stratoscope.analysis.top.peaks import DIRECT, EFFECT, NEURON, WRITE, peaks_in, strength_of
from stratoscope.analysis.top.tokens import at_position, of_text, some_of
from stratoscope.analysis.values.around import excerpt
from stratoscope.analysis.values.explained import about_explained
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.trace.arguments import at_least, span_names, whole
from stratoscope.trace.arrays import Ints
from stratoscope.trace.format.text import spelled
from stratoscope.trace.notes import INFO, WARNING, Note, notes_of
from stratoscope.trace.numbers import choose_layers, listing
from stratoscope.trace.opened import opened
from stratoscope.trace.prompts import Prompts, some_prompts
from stratoscope.trace.targets import TargetChoice, Targets, one_target
from stratoscope.words import counted, number, visible

if TYPE_CHECKING:
    import pandas as pd

    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.numbers import LayerChoice
    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.prompts import PromptChoice


def top(
    inputs: Inputs,
    *,
    columns: Columns = None,
    prompt: PromptChoice = None,
    all_prompts: bool = False,
    token: int | None = None,
    token_text: str | None = None,
    layers: LayerChoice = None,
    span: str | Sequence[str] | None = None,
    n: int = defaults.STRONGEST,
    by: names.Ranking = defaults.RANKING,
    target: TargetChoice = None,
    first_token: bool = defaults.FIRST_TOKEN,
) -> pd.DataFrame:
    """List the strongest neurons of a prompt, of one of its tokens, or of some layers.

    A neuron is listed once, at the token where it is strongest. Strongest is what writes most into its layer's output
    (`write_norm`); of an input without write norms, such as a CSV, what has the largest value, whatever its sign.
    Only what was recorded can be listed: the k strongest neurons of each token and layer. `by` ranks them by what they
    do to a target's logit instead.

    Parameters
    ----------
    inputs
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    columns
        Which column of CSV files is which, as in `import_csv`.
    prompt
        Prompts by id or index, each listed by itself. Without it the first one; of CSV files each.
    all_prompts
        Every prompt.
    token
        Only the token at this position of the prompt.
    token_text
        Only the token of this text: with or without its blanks, as pictures show it or as a tokenizer spells it. One
        that stands in several places is refused, with its positions.
    layers
        "22-31,0", one number, or a sequence of them; None = all.
    span
        Only tokens of these parts of a prompt (`names.SPANS`).
    n
        How many neurons of each prompt.
    by
        "write"; "effect": the total effect on the target's logit, to first order; "direct": the direct contribution to
        it, which is no effect. The two are never mixed.
    target
        Of these: the target, by its text or its number; by default the first.
    first_token
        Let the first token of each prompt take part. Asking for it by `token` or `token_text` does, too.

    Returns
    -------
    pandas.DataFrame
        Strongest first, one row a neuron: `prompt`, `position`, `token`, `layer`, of a mixture of experts `expert`
        (−1 = a dense or shared MLP), `neuron`, `value` (its activation with its sign; of an import the number as
        given), `write_norm` (|a_i|·‖W_:,i‖₂), `share` (its part of the squared write norms of all neurons of that
        layer there), `in_prompts` of `of_prompts` in which it is among the peaks, and `elsewhere`, the strongest other
        tokens at which it is, in the words around them. Ranked by "effect" or "direct" a column of that name stands in
        place of `value`, `write_norm` and `share`. NaN = not recorded. `attrs` says what it is ranked by
        (`strongest_by`), where the numbers are from (`source`), what `neuron` is an index of (`axis`) and what a reader
        must know (`notes`).

    Raises
    ------
    InputError
        There are no peaks in the input, or what was asked for is not there.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, layers=3, record="peaks")
    >>> strongest = stratoscope.top(trace, prompt="critical-1", layers=2, n=3)
    >>> strongest[["layer", "in_prompts", "of_prompts"]].iloc[0].tolist()
    [2, 2, 4]
    >>> strongest["write_norm"].is_monotonic_decreasing
    True
    """
    n = at_least(1, n, "n")
    spans = _spans(span, token, token_text)
    refuse_unknown(by, names.RANKINGS, "ranking", "by")
    dataset = opened(inputs, columns)
    ranked = strength_of(dataset, by)
    if target is not None or ranked in (EFFECT, DIRECT):
        dataset = one_target(dataset, [{EFFECT: "neuron_effect", DIRECT: "neuron_logit"}.get(ranked, "it")], target)
    if "text" in dataset.variables:
        dataset = dataset.assign_coords(text=dataset["text"].compute())  # read once, for many excerpts
    prompts = some_prompts(dataset)
    chosen = _prompts(prompts, prompt, all_prompts=all_prompts)
    rows = choose_layers(dataset["layer"].values, layers)
    if token is not None:
        position = whole(token, "token", "Give a position such as 10.")
        tokens = {index: np.array([at_position(prompts, index, position)]) for index in chosen}
    elif token_text is not None:
        tokens = {index: np.array([of_text(prompts, index, token_text)]) for index in chosen}
    else:
        tokens = {index: some_of(prompts, index, spans, first_token=first_token) for index in chosen}
        _refuse_none(prompts, tokens, spans)
    first_token |= any(bool(prompts.first[own].any()) for own in tokens.values())
    listed = _listed(prompts, tokens, rows, n, ranked)
    frame = _frame(prompts, listed, ranked, first_token=first_token)
    frame.attrs = {
        "strongest_by": ranked,
        "source": str(dataset.attrs.get("source", "")),
        "axis": str(dataset.attrs.get("axis", "unknown")) if names.ROW in dataset.sizes else "neuron",
        "notes": [note.stored() for note in _notes(prompts, frame, rows, n, ranked, first_token=first_token)],
    }
    if ranked in (EFFECT, DIRECT):
        frame.attrs["target"] = Targets(dataset).label_of(chosen, 0)
    return frame


def _spans(span: str | Sequence[str] | None, token: int | None, token_text: str | None) -> list[str]:
    """The spans as a list, where no other choice of tokens stands against it."""
    given = {"token": token, "token_text": token_text, "span": span}
    both = [name for name, value in given.items() if value is not None]
    if len(both) > 1:
        what = "tokens are chosen by a position, by a text or by spans, not by two of them"
        raise UsageError(what, where=both[1], fix="Give one of them.")
    return span_names(span)


def _prompts(prompts: Prompts, choice: PromptChoice, *, all_prompts: bool) -> list[int]:
    """The prompts that a person names; else the first, of an import each."""
    if choice is not None and all_prompts:
        raise UsageError("one prompt or all of them, not both", where="prompt", fix="Leave out one of the two.")
    chosen = prompts.find_all(choice)
    every = choice is not None or all_prompts or prompts.dataset.attrs.get("source") == names.IMPORTED
    return chosen if every else chosen[:1]


def _refuse_none(prompts: Prompts, tokens: Mapping[int, Ints], spans: Sequence[str]) -> None:
    """Raise where no token is left in any of the prompts."""
    if any(len(own) for own in tokens.values()):
        return
    if spans:
        there = np.unique(prompts.spans[np.isin(prompts.of_token, [*tokens])])
        fix = f"In these prompts: {listing([names.SPANS[one] if one >= 0 else 'unknown' for one in there])}."
        raise InputError("no token but first ones of these prompts is in that span", where="span", fix=fix)
    what = f"{listing([prompts.labels[index] for index in tokens])}: there is no token but the first"
    raise InputError(what, where="first_token", fix="Let it take part.")


def _listed(prompts: Prompts, tokens: Mapping[int, Ints], rows: Ints, n: int, by: str) -> pd.DataFrame:
    """The n strongest neurons of each prompt, each once, at its strongest token."""
    import pandas as pd

    wanted = np.zeros(len(prompts.of_token), bool)
    for own in tokens.values():
        wanted[own] = True
    best: list[pd.DataFrame] = []
    for first, stop in _runs(sorted(tokens)):
        for block in peaks_in(prompts, first, stop, rows, by=by):
            here = block[wanted[block["token"].to_numpy()]]
            here = here.assign(prompt=prompts.of_token[here["token"].to_numpy()])
            ranked = pd.concat([*best, here]).sort_values("strength", ascending=False, kind="stable")
            best = [ranked.drop_duplicates(["prompt", *NEURON]).groupby("prompt", sort=False).head(n)]
    if not sum(map(len, best)):
        fix = "Choose other tokens or layers; a layer without an MLP has none."
        what = "peak" if by not in (EFFECT, DIRECT) else by
        raise InputError(f"no {what} is recorded at these tokens and layers", where="trace", fix=fix)
    place = {prompt: place for place, prompt in enumerate(tokens)}
    return best[0].sort_values("prompt", key=lambda column: column.map(place), kind="stable", ignore_index=True)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The first of each run of consecutive numbers, and where it stops."""
    there = set(numbers)
    starts = [one for one in numbers if one - 1 not in there]
    stops = [one + 1 for one in numbers if one + 1 not in there]
    return list(zip(starts, stops, strict=True))


def _frame(prompts: Prompts, listed: pd.DataFrame, by: str, *, first_token: bool) -> pd.DataFrame:
    """The table that people get."""
    neurons = listed.drop_duplicates(NEURON)
    counted = np.ones(len(prompts.of_token), bool) if first_token else ~prompts.first
    found = found_again(prompts, neurons, counted, by)
    in_prompts = found.groupby("which")["prompt"].nunique()
    which = listed[NEURON].merge(neurons[NEURON].assign(which=np.arange(len(neurons))), on=NEURON)["which"]
    tokens = listed["token"].to_numpy()
    frame = listed.assign(
        prompt=[prompts.labels[index] for index in listed["prompt"]],
        position=prompts.position[tokens],
        token=[spelled(text) for text in prompts.words(tokens)],
        in_prompts=which.map(in_prompts),
        of_prompts=len(prompts),
    )
    frame["elsewhere"] = [_elsewhere(prompts, found, *one) for one in zip(which, tokens, strict=True)]
    if by in (EFFECT, DIRECT):
        frame = frame.rename(columns={"value": by})
        return frame[["prompt", "position", "token", "layer", "neuron", by, "in_prompts", "of_prompts", "elsewhere"]]
    expert = ["expert"] if "peak_expert" in prompts.dataset else []
    return frame[["prompt", "position", "token", "layer", *expert, "neuron", "value", "write_norm", "share",
                  "in_prompts", "of_prompts", "elsewhere"]]  # fmt: skip


def _elsewhere(prompts: Prompts, found: pd.DataFrame, which: int, token: int) -> list[str]:
    """The strongest other tokens in their words; what reads the same is told once."""
    told: dict[str, str] = {}
    others = other_tokens(prompts, found, which, token)
    for one, value, prompt in zip(others["token"], others["value"], others["prompt"], strict=True):
        of_prompt = f", {visible(prompts.labels[prompt])}" if len(prompts) > 1 else ""
        told.setdefault(words := excerpt(prompts, one), f"{words} ({number(value)}{of_prompt})")
        if len(told) == SHOWN:
            break
    return [*told.values()]


def _notes(prompts: Prompts, frame: pd.DataFrame, rows: Ints, n: int, by: str, *, first_token: bool) -> list[Note]:
    """What a reader must know about the list."""
    dataset, imported = prompts.dataset, names.ROW in prompts.dataset.sizes
    notes = [*notes_of(dataset)] if imported else [note for note in notes_of(dataset) if note.severity == WARNING]
    if not first_token and prompts.first.any():
        notes.append(Note("L05", INFO, "The first token of each prompt is left out, of the counts too."))
    if len(rows) > 1 and by not in (EFFECT, DIRECT):
        text = "Raw sizes of different layers are not alike: choose layers to see what is strong in each."
        notes.append(Note("L07", INFO, text))
    if by in (EFFECT, DIRECT):
        return [*notes, *_about_explained(prompts, frame, n, by)]
    if not imported:
        kept = counted(dataset.sizes[names.PEAK], "neuron")
        text = f"Only the {kept} that write most at each token and layer are recorded: what is absent is not zero."
        notes.append(Note("L08", INFO, text))
    text = "Large is not important: what a neuron writes may change no output."
    if by != WRITE:
        text = "Ranked by the size of the value: how much a neuron writes is not known. Large is not important."
    notes.append(Note("L09", INFO, text))
    if len(frame) < n * frame["prompt"].nunique():
        notes.append(Note("L08", INFO, f"Fewer than {n} are recorded there."))
    return notes


def _about_explained(prompts: Prompts, frame: pd.DataFrame, n: int, by: str) -> list[Note]:
    """What a reader must know about neurons that are ranked by what they do to a logit."""
    dataset, of = prompts.dataset, {EFFECT: "neuron_effect", DIRECT: "neuron_logit"}[by]
    listed = [place for place, label in enumerate(prompts.labels) if label in set(frame["prompt"])]
    notes = about_explained(dataset, [of], listed, by_token=False)
    notes += [note for note in notes_of(dataset) if note.id == "L24" and note not in notes]
    kept = counted(dataset[of].shape[-1], "neuron")
    plan = dataset.attrs.get("plan")
    everywhere = by == EFFECT or (isinstance(plan, Mapping) and plan.get("positions") == names.ALL_POSITIONS)
    where = "each token and layer" if everywhere else "each layer, at the answer position only,"
    text = f"Only {kept} of {where} are recorded, the strongest: what is absent is not zero."
    notes.append(Note("L08", INFO, text))
    if len(frame) < n * frame["prompt"].nunique():
        notes.append(Note("L08", INFO, f"Fewer than {n} are recorded there."))
    return notes
