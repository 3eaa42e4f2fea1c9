"""A labelled synthetic trace of any shape, with structure planted at stated places; no model is needed.

`model` says what is planted and where, `activity` and `attention` how the numbers are made, and each record group which
of them are its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from math import prod
from pathlib import Path

import numpy as np
import xarray as xr

from stratoscope import defaults
from stratoscope.names import (
    COMPONENT,
    DEPTH,
    EDGE,
    EFFECT_RANK,
    HEAD,
    LAYER,
    LENS,
    LENS_RANK,
    LOGIT_RANK,
    NEURON,
    OF_SOME_MODELS,
    PEAK,
    PROMPT,
    PROMPT_TEXTS,
    QUANTITIES,
    READ_PART,
    RECORD_GROUPS,
    ROUTE,
    SPANS,
    STRONGEST,
    TARGET,
    TARGETS,
    TOKEN,
    WRITE_RANK,
    Positions,
    Quantity,
    edges,
    quantities_of,
)
from stratoscope.progress import Progress
from stratoscope.recorder.groups import groups_of
from stratoscope.recorder.groups.group import RecordGroup
from stratoscope.recorder.simulated.activity import Summaries
from stratoscope.recorder.simulated.contributions import PARTS, SIGNED, WRITTEN
from stratoscope.recorder.simulated.model import LENS_NAMES, SimulatedModel, SimulationSize
from stratoscope.recorder.simulated.prompt import SimulatedPrompt
from stratoscope.recorder.simulated.published import read_published
from stratoscope.recorder.simulated.said import DTYPE, attributes
from stratoscope.recorder.simulated.sizes import check, explained, refuse_unlike, simulation_size, size_of_look_alike
from stratoscope.recorder.simulated.vocabulary import WORDS
from stratoscope.trace.arguments import chosen
from stratoscope.trace.format.schema import Block
from stratoscope.trace.labels import labelled

Put = Callable[[str, int, int, np.ndarray], None]  # takes a streamed quantity, layer, row of the prompt, and rows

_STAGE = "simulating"


def simulate(
    out: str | os.PathLike[str] | None = None,
    *,
    like: str | os.PathLike[str] | xr.DataTree | None = None,
    prompts: int | None = None,
    tokens: int | str | tuple[int, int] | None = None,
    layers: int | None = None,
    d_model: int | None = None,
    d_ff: int | None = None,
    heads: int | None = None,
    top_k: int = defaults.TOP_K,
    seed: int = defaults.SEED,
    anomaly: bool = defaults.ANOMALY,
    record: str | Iterable[str] = defaults.SIMULATED_RECORD,
    targets: Iterable[str] | None = None,
    against: str | None = None,
    positions: Positions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Make a synthetic trace with known structure.

    Prompts come as pairs of a critical and a neutral twin. Planted are class-selective neurons (Cohen's d of
    `prompt_mean`), a neuron that is often the strongest peak of critical tokens, a sink at the first token, and one
    head that sends its attention to one unusual token; `attrs["planted"]` lists where, and how strongly.

    A look-alike (`like`) has the shape of a recording of which class profiles were published: its classes, their sizes,
    and how they differ in each layer. It follows from these averages and the seed alone, and made again it is the same,
    byte for byte. Nothing is planted in it but the sink at the first token.

    Parameters
    ----------
    out
        The trace to write, prompt by prompt: memory does not grow with their number. Without it the Dataset stays in
        memory, which is for small shapes.
    like
        Published class profiles that it is to resemble: what `publish` wrote at the level aggregate or private, or a
        Result of that kind.
    prompts
        How many, by default 24, or as many as published; the last of an odd number has no twin.
    tokens
        Tokens of a prompt: one number, or the fewest and the most, by default (20, 32) or "20-32", or about as many as
        published. The first one is special, the rest are the user's.
    layers, d_model, d_ff, heads
        Sizes of the pretended model, by default 16, 256, 1024 and 8; not with `like`, which has those of its model.
    top_k
        Peaks per token and layer.
    seed
        The same seed and sizes give the same arrays, byte for byte, whatever `record` is; only with "neurons" are
        `neuron_norm`, `peak_share`, `peak_explained` and the prompt summaries those of the neurons that are drawn.
    anomaly
        Whether one head of one prompt is routed oddly; nothing else depends on it, and no look-alike has it.
    record
        Groups of `names.RECORD_GROUPS`; with `like` none that is about targets, lenses or routes.
    targets, against
        With "logits" or "effects": tokens whose logits are explained, and the one they are compared with; they need not
        be words of the prompts. By default `defaults.SIMULATED_TARGETS`, against the mean over the vocabulary. With
        "lens" alone there are none by default.
    positions
        With "lens": "all" for what lenses read at every token; by default at the last four of each prompt.
    overwrite
        Replace a trace that is already there.
    progress
        Called with the stage, prompts done, and prompts in all.

    Returns
    -------
    xarray.Dataset
        As `open_trace` gives it, every array with `source` "simulated".

    Raises
    ------
    InputError
        An argument is out of range, the shape is too large for memory, or `like` is not what can be resembled.
    TraceError
        The trace cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, layers=3, d_ff=512)
    >>> trace["prompt_id"].values.tolist()
    ['critical-1', 'neutral-1', 'critical-2', 'neutral-2']
    >>> trace["mlp_out_norm"].dims, trace["mlp_out_norm"].attrs["source"]
    (('token', 'layer'), 'simulated')
    """
    groups = groups_of(chosen(record, RECORD_GROUPS, "record"))
    recorded = [group.name for group in groups]
    sizes = {"layers": layers, "d_model": d_model, "d_ff": d_ff, "heads": heads, "top_k": top_k}
    published = None
    if like is None:
        shape = simulation_size(sizes, prompts, tokens, seed=seed, anomaly=anomaly)
        shape = replace(shape, **explained(recorded, targets, against, positions))
    else:
        refuse_unlike(recorded, targets=targets, against=against, positions=positions)
        published = read_published(like)
        shape = size_of_look_alike(published, sizes, prompts, tokens, seed=seed)
    model = SimulatedModel(shape)
    attrs = attributes(model, recorded, {kind for group in groups for kind in group.planted}, published)
    make = _block_maker(model, groups)
    if out is None:
        _refuse_large(model, groups)
        return _in_memory(model, groups, make, attrs, progress)
    from stratoscope.trace.read.reader import open_trace
    from stratoscope.trace.write.writer import TraceWriter

    with TraceWriter(
        Path(out),
        attrs=attrs,
        layers=range(shape.layers),
        sizes=_sizes(shape),
        variables=_variables(model, groups),
        streams=_streams(model, groups),
        overwrite=overwrite,
        at_once=True,
    ) as writer:

        def put(name: str, layer: int, row: int, rows: np.ndarray) -> None:
            stream = writer.stream(name)
            stream.write(layer, stream.next_row + row, rows)

        for index in _counted(shape.prompts, progress):
            writer.append(make(index, put))
        writer.finish()
    return open_trace(Path(out))


# --- what is written ------------------------------------------------------------------------------------------------


def _quantities(model: SimulatedModel, groups: Sequence[RecordGroup], *, streamed: bool) -> list[Quantity]:
    """Those that a model without experts and learned sinks has."""
    of_targets = [TARGETS] if model.shape.targets else []
    found = quantities_of([*(group.name for group in groups), *of_targets])
    return [one for one in found if one.name not in OF_SOME_MODELS and one.streamed == streamed]


def _variables(model: SimulatedModel, groups: Sequence[RecordGroup]) -> list[str]:
    return [quantity.name for quantity in _quantities(model, groups, streamed=False)]


def _streams(model: SimulatedModel, groups: Sequence[RecordGroup]) -> dict[str, str]:
    dtypes = {one.name: one.dtype for one in _quantities(model, groups, streamed=True)}
    return {name: DTYPE if dtype == "model" else dtype for name, dtype in dtypes.items()}


def _sizes(shape: SimulationSize) -> dict[str, int]:
    sizes = {LAYER: shape.layers, DEPTH: shape.layers + 1, HEAD: shape.heads, PEAK: shape.top_k, NEURON: shape.d_ff}
    sizes |= {LENS: len(LENS_NAMES), LENS_RANK: defaults.LENS_TOKENS, ROUTE: defaults.KEPT_EDGES}
    if not shape.targets:
        return sizes
    of_targets = {
        TARGET: len(shape.targets),
        LOGIT_RANK: 2 * shape.top_k,
        EFFECT_RANK: shape.top_k,
        STRONGEST: 2 * SIGNED,
        WRITE_RANK: 2 * WRITTEN,
        READ_PART: PARTS,
        COMPONENT: 2 + 2 * shape.layers,
    }
    return sizes | of_targets


# --- the prompts, one by one ----------------------------------------------------------------------------------------


def _counted(total: int, progress: Progress | None) -> Iterator[int]:
    for index in range(total):
        if progress:
            progress(_STAGE, index, total)
        yield index
    if progress:
        progress(_STAGE, total, total)


def _block_maker(model: SimulatedModel, groups: Sequence[RecordGroup]) -> Callable[[int, Put], Block]:
    return partial(_block, model, groups, cache(partial(Summaries, model)))


def _block(
    model: SimulatedModel, groups: Sequence[RecordGroup], summaries: Callable[[], Summaries], index: int, put: Put
) -> Block:
    """One prompt; what is streamed of it is put where it belongs first, as all else is then as those rows say."""
    prompt = SimulatedPrompt(model, index, summaries)
    text = prompt.text
    for group in groups:
        for rows in group.simulated_rows(prompt):
            put(*rows)
    values = {name: value for group in groups for name, value in group.simulated(prompt).items()}
    if model.shape.targets:
        values |= prompt.contributions.targets
    length = len(text.words)
    arrays = {name: values[name].astype(QUANTITIES[name].dtype, copy=False) for name in _variables(model, groups)}
    arrays |= {
        "prompt": np.zeros(length, np.int32),
        "position": np.arange(length, dtype=np.int32),
        "token_id": text.words.astype(np.int32),
        "span": np.full(length, SPANS.index("user"), np.int8),
    }
    arrays["span"][0] = SPANS.index("special")
    texts = {name: [value] for name, value in model.cast.names(text.index, text.template).items()}
    return Block(arrays, {"text": [WORDS[word] for word in text.words], **texts})


# --- in memory ------------------------------------------------------------------------------------------------------


def _refuse_large(model: SimulatedModel, groups: Sequence[RecordGroup]) -> None:
    sizes = _all_sizes(model)
    dtypes = {name: QUANTITIES[name].dtype for name in _variables(model, groups)} | _streams(model, groups)
    needed = sum(
        prod(sizes[dim] for dim in QUANTITIES[name].dims) * np.dtype(dtype).itemsize for name, dtype in dtypes.items()
    )
    check(
        needed <= defaults.IN_MEMORY_BYTES,
        f"this shape takes {needed / 2**30:.1f} GiB, too much to keep in memory",
        "out",
        "Name a trace to write it to, or ask for fewer prompts or groups.",
    )


def _all_sizes(model: SimulatedModel) -> dict[str, int]:
    lengths = model.lengths.tolist()
    growing = {TOKEN: sum(lengths), PROMPT: model.shape.prompts, EDGE: sum(map(edges, lengths))}
    return {**_sizes(model.shape), **growing}


def _in_memory(
    model: SimulatedModel,
    groups: Sequence[RecordGroup],
    make: Callable[[int, Put], Block],
    attrs: dict[str, object],
    progress: Progress | None,
) -> xr.Dataset:
    shape, sizes = model.shape, _all_sizes(model)
    streamed = {
        name: np.empty([sizes[dim] for dim in QUANTITIES[name].dims], dtype)
        for name, dtype in _streams(model, groups).items()
    }
    before = {TOKEN: 0, EDGE: 0}  # rows of earlier prompts

    def put(name: str, layer: int, row: int, rows: np.ndarray) -> None:
        first = before[QUANTITIES[name].dims[0]] + row
        streamed[name][first : first + len(rows), layer] = rows

    blocks = []
    for index in _counted(shape.prompts, progress):
        blocks.append(make(index, put))
        length = int(model.lengths[index])
        before = {TOKEN: before[TOKEN] + length, EDGE: before[EDGE] + edges(length)}
    arrays = {name: np.concatenate([block.arrays[name] for block in blocks]) for name in blocks[0].arrays}
    arrays["prompt"] = np.repeat(np.arange(len(blocks)), model.lengths)
    arrays[LAYER] = np.arange(shape.layers)
    if any(DEPTH in QUANTITIES[name].dims for name in arrays if name in QUANTITIES):
        arrays[DEPTH] = np.arange(shape.layers + 1)
    texts = {name: [text for block in blocks for text in block.texts[name]] for name in ("text", *PROMPT_TEXTS)}
    return labelled(arrays | streamed, texts, attrs)
