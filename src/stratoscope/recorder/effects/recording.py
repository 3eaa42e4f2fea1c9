"""What a recording does about total effects: a batch differentiated beside the recorded forward, its values kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope import defaults, names
from stratoscope.errors import CaptureError
from stratoscope.model import sites as s
from stratoscope.model.head import Head
from stratoscope.model.heads import HEADS
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.progress import Progress
from stratoscope.recorder.effects.all_prompts import AllPrompts
from stratoscope.recorder.effects.asked import EffectSettings
from stratoscope.recorder.effects.baseline import Baseline, MeanPass, means_of, written_at
from stratoscope.recorder.effects.calibration import Calibrator
from stratoscope.recorder.effects.gradients import Gradients, SiteGradient
from stratoscope.recorder.effects.no_effects import Arrays, MakeBatch, NoEffects
from stratoscope.recorder.effects.path import PathIntegral
from stratoscope.recorder.effects.reads import NOT_SPLIT, PARTS, NeuronReader
from stratoscope.recorder.effects.strongest import EffectTables
from stratoscope.recorder.effects.writes import FrozenScales, Writes
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.memory import BatchSplitter, unless_out_of_memory
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.routes.effects import RouteEffects
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.trace.calibration import CALIBRATION
from stratoscope.trace.labels import note
from stratoscope.trace.read.reader import open_trace

_OTHERWISE = 0.05  # another implementation of attention or experts: of the largest logit, in half precision
_MEANS = "taking the means that effects are counted from"
_IN_PARTS = "Total effects of some"  # begins what is said of prompts and batches that did not fit into memory
_HEADS_AT_ZERO = (
    "A trace holds means of neurons only: total effects of heads and attention are counted from zero, those of neurons "
    "and MLPs from the mean."
)


def effects_of(
    asked: EffectSettings | None,
    loaded: LoadedModel,
    sites: ModelSites,
    targets: BatchTargets | None,
    observer: Observer,
    top_k: int,
    record: Collection[str],
) -> NoEffects:
    """What a recording of these groups does about total effects; all else is as of `EffectsRecorder`."""
    if asked is None or targets is None:
        return NoEffects()
    routes = RouteEffects(loaded.model, sites) if names.ROUTES in record else None
    other_code = bool(observer.changes_implementation)
    return EffectsRecorder(asked, loaded, sites, targets, top_k, routes, other_code=other_code)


class EffectsRecorder(NoEffects):
    """Total effects of one batch after another.

    Parameters
    ----------
    asked
        From where they are counted, and how.
    loaded, sites
        The model and its proved sites.
    targets
        The targets of the batch in hand.
    top_k
        Neurons that are kept of a token and layer.
    routes
        What is found of the effects of edges; None where routes are not recorded.
    other_code
        Whether recorded forwards run other implementations than the model's own.

    Attributes
    ----------
    baseline : Baseline
        What activations are compared with; of a first pass, when it has been `counted_from`.
    token_ids : set of int
        Tokens that are named in what was recorded since it was last emptied.
    """

    def __init__(
        self,
        asked: EffectSettings,
        loaded: LoadedModel,
        sites: ModelSites,
        targets: BatchTargets,
        top_k: int,
        routes: RouteEffects | None = None,
        *,
        other_code: bool,
    ) -> None:
        self._routes = routes
        self.asked, self._model, self._sites, self._targets, self._top_k = asked, loaded.model, sites, targets, top_k
        head = sites.head
        assert isinstance(head, Head)  # there are no targets without
        self._head, self._other_code = head, other_code
        self._gradients = Gradients(self._model, sites)
        self._writes = Writes(self._model, sites, head, targets.directions.vocabulary)
        self._reader = NeuronReader(self._model, sites)
        self.token_ids: set[int] = set()
        self._largest, self._exact, self._recomputed, self._smallest = 0.0, True, False, 0
        self._earlier: list[str] = []  # what did not fit before this recording was interrupted
        weights = loaded.identity.get("weights_sha256")
        self._mean_of: str | None = None
        baseline = Baseline()
        if asked.mean_of is not None:
            baseline = means_of(asked.mean_of, sites, weights)
            self._mean_of = str(open_trace(asked.mean_of).attrs.get("uuid"))
        self._calibration: Mapping[str, Any] | None = None
        self.counted_from(baseline)

    def counted_from(self, baseline: Baseline) -> None:
        """Take what activations are compared with."""
        self.baseline = baseline
        self._written = written_at(self._model, self._sites, self._gradients.kinds, baseline)
        path = (self._model, self._sites, self._gradients, baseline, self._written, self.asked.steps)
        self._path = PathIntegral(*path) if self.asked.steps > 1 else None

    # --- what it will be --------------------------------------------------------------------------------------------

    def only(self, record: Collection[str]) -> NoEffects:
        """The same, where effects are among these groups."""
        return self if names.EFFECTS in record else NoEffects()

    @property
    def sizes(self) -> dict[str, int]:  # type: ignore[override]
        """Lengths of the dimensions of its quantities."""
        heads = max((one.count for one in self._gradients.heads if one is not None), default=0)
        fixed = {names.STRONGEST: 2 * defaults.STRONGEST_PER_SIGN, names.WRITE_RANK: 2 * defaults.WRITES_PER_SIGN}
        fixed |= {names.LAYER: len(self._sites.layers), names.TARGET: len(self._targets)}
        fixed |= {names.READ_PART: PARTS, names.COMPONENT: 2 * len(self._sites.layers) + 2}
        return {names.EFFECT_RANK: self._top_k, **fixed, **({names.HEAD: heads} if heads else {})}

    @property
    def variables(self) -> list[str]:  # type: ignore[override]
        """Names of its quantities, of this model."""
        found = [one.name for one in names.quantities_of([names.EFFECTS])]
        if self._routes is not None:
            found += [one.name for one in names.quantities_of([names.EFFECTS, names.ROUTES]) if one.beside]
        without_mlp = not self._sites.d_ff
        without_heads = names.HEAD not in self.sizes
        return [
            name
            for name in found
            if not (without_heads and name == "head_effect")
            and not (without_mlp and name not in ("head_effect", "attn_effect") and not name.startswith("route"))
        ]

    @property
    def plan(self) -> dict[str, Any]:  # type: ignore[override]
        """The fields of the plan that are about effects."""
        return {**self.asked.planned, "mean_of": self._mean_of}

    @property
    def notes(self) -> list[dict[str, str]]:  # type: ignore[override]
        """What is to be said of them."""
        return [note("L28", "info", _HEADS_AT_ZERO)] if self.asked.mean_of is not None else []

    def into(self, receipt: dict[str, Any]) -> dict[str, Any]:
        """The receipt with how the differentiated forwards agreed with the recorded ones."""
        facts: dict[str, Any] = {
            "logits": s.BIT_EQUAL if self._exact else s.WITHIN_ROUNDING,
            "largest_error": self._largest,
        }
        if self._routes is not None:
            facts |= self._routes.facts
        reads = self._reader.facts
        limits = [one for one in receipt["limits"] if not one.startswith((_IN_PARTS, NOT_SPLIT))]
        limits += [*self._reader.sentences, *(self._calibration or {}).get("limits", ())]
        if self._recomputed:
            limits.append(
                f"{_IN_PARTS} prompts did not fit into memory: their blocks were computed once more, backward."
            )
        if self._smallest:
            limits.append(
                f"{_IN_PARTS} batches did not fit into memory and were taken in parts, down to "
                f"{self._smallest}: their last bits may differ from those of whole batches."
            )
        limits += [one for one in self._earlier if one not in limits]
        limits = limits if self._routes is None else self._routes.into(limits)
        return {**receipt, names.EFFECTS: facts, "reads": reads, "limits": list(dict.fromkeys(limits))}

    # --- before -----------------------------------------------------------------------------------------------------

    def begin(self, prompts: AllPrompts, receipt: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """As `NoEffects` says it."""
        if names.EFFECTS in receipt:  # of an interrupted recording that is gone on with
            self._exact = self._exact and receipt[names.EFFECTS]["logits"] == s.BIT_EQUAL
            self._largest = max(self._largest, receipt[names.EFFECTS]["largest_error"])
            self._reader.go_on(receipt["reads"])
            if self._routes is not None:
                self._routes.go_on(receipt[names.EFFECTS])
            self._earlier = [one for one in receipt["limits"] if one.startswith(_IN_PARTS)]
        if self.asked.first_pass:
            self.counted_from(self._means(prompts, progress))
        self._calibration = receipt.get(CALIBRATION)
        if self._calibration is None and self.asked.calibration:
            self._calibration = self._calibrator(prompts).measure(progress)
        return {} if self._calibration is None else {CALIBRATION: self._calibration}

    def seconds_before(self, prompts: AllPrompts, seconds_of_all: float) -> tuple[float, float]:
        """As `NoEffects` says it; the ablations of one prompt are really made."""
        calibrating = self._calibrator(prompts).seconds() if self.asked.calibration else 0.0
        return seconds_of_all if self.asked.first_pass else 0.0, calibrating

    def _calibrator(self, prompts: AllPrompts) -> Calibrator:
        return Calibrator(self._model, self._sites, self._targets, prompts, self.asked, self.baseline)

    def _means(self, prompts: AllPrompts, progress: Progress) -> Baseline:
        """The means over the words of all prompts."""
        means, done = MeanPass(self._model, self._sites), 0

        def added(part: Sequence[int]) -> bool:
            means.add(prompts.batch(part))
            return True

        total = sum(map(len, prompts.batches))
        for batch in prompts.batches:
            progress(_MEANS, done, total)
            for part, _ in BatchSplitter(len(batch)).run(batch, prompts.lengths, prompts.names, added, _nothing):
                done += len(part)
        progress(_MEANS, done, total)
        return means.result()

    # --- batch by batch -----------------------------------------------------------------------------------------------

    def outcome(
        self,
        observer: Observer,
        prompts: Sequence[TokenisedPrompt],
        whole: Sequence[TokenisedPrompt],
        ids: Sequence[str],
        logits: Tensor | None,
        make_batch: MakeBatch,
    ) -> Arrays:
        """As `NoEffects` says it."""
        assert logits is not None
        with observer.aside():
            found = self.of_batch(prompts, ids, logits, make_batch)
        return {
            name: np.concatenate([_followed(name, one[name], prompt) for one, prompt in zip(found, whole, strict=True)])
            for name in self.variables
        }

    def of_batch(
        self, prompts: Sequence[TokenisedPrompt], ids: Sequence[str], logits: Tensor, make_batch: MakeBatch
    ) -> list[Arrays]:
        """Effects of prompts without answers, prompt by prompt, token or prompt first.

        Parameters
        ----------
        prompts, ids
            Their tokens and names.
        logits
            Those that were recorded at the answer position, [prompt, vocabulary].
        make_batch
            Pads prompts, on the left.

        Raises
        ------
        CaptureError
            The differentiated forward gives other logits, a gradient is not finite, or nothing fits into memory.
        """
        work = partial(self._arrays, prompts, ids, logits, self._targets.token, self._targets.against, make_batch)
        found: list[Arrays] = []
        for part in self._in_parts(list(range(len(prompts))), work):
            found += part
        return found

    def _in_parts(self, chosen: list[int], work: Callable[[list[int], bool], list[Arrays]]) -> Iterator[list[Arrays]]:
        """Prompts together; halved where they do not fit, and one alone with its blocks computed again."""
        waiting = [chosen]
        while waiting:
            part = waiting.pop(0)
            found = unless_out_of_memory(partial(work, part, False))
            if found is None and len(part) > 1:
                middle = (len(part) + 1) // 2
                self._smallest = min(self._smallest or middle, middle)
                waiting[:0] = [part[:middle], part[middle:]]
                continue
            if found is None:
                self._recomputed = True
                found = unless_out_of_memory(partial(work, part, True))
            if found is None:
                raise CaptureError(
                    "its total effects do not fit into memory, not even alone and block by block",
                    where="effects",
                    fix="Use --dtype bfloat16, a larger device, a shorter prompt, or record without the group effects.",
                )
            yield found

    def _arrays(
        self,
        prompts: Sequence[TokenisedPrompt],
        ids: Sequence[str],
        logits: Tensor,
        token: Tensor,
        against: Tensor,
        make_batch: MakeBatch,
        chosen: list[int],
        recompute: bool,
    ) -> list[Arrays]:
        """Effects of some prompts of the batch."""
        mine, names_of = [prompts[number] for number in chosen], [ids[number] for number in chosen]
        batch, token, against = make_batch(mine), token[chosen], against[chosen]

        def values(seen: Tensor) -> Tensor:
            return self._targets.directions.values(seen, token, against)

        tables = EffectTables(
            *(self._sites, self._gradients.heads, self.baseline, self._written, batch),
            targets=token.shape[1],
            top_k=self._top_k,
            ids=names_of,
        )
        of_edges = self._begin_edges(batch, token.shape[1], recompute)

        def receive(seen: SiteGradient) -> None:
            tables.receive(seen)
            self._edges(seen, names_of)

        first = receive if self._path is None else partial(_but, self._path.kinds, receive)
        check = partial(self._agree, logits[chosen], names_of)
        with of_edges:
            with FrozenScales(self._model, self._sites, self._head) as scales:
                self._gradients.run(batch, values, first, recompute=recompute, before=check)
            if self._path is not None:
                self._path.run(batch, values, receive)
        return self._kept(mine, batch, tables, scales, self._targets.directions.of(token, against))

    def _begin_edges(self, batch: Batch, targets: int, recompute: bool) -> AbstractContextManager[object]:
        """While open, the attention of forwards of this batch is seen, if routes are recorded."""
        if self._routes is None:
            return nullcontext()
        self._routes.begin(batch, targets, recompute=recompute)
        return self._routes.watched

    def _edges(self, seen: SiteGradient, ids: list[str]) -> None:
        """Take the effects of edges, where this is of attention."""
        if self._routes is None:
            return
        if seen.kind == HEADS:
            self._routes.of_heads(seen.layer, seen.target, seen.value, seen.gradient, ids)
        elif seen.kind == s.ATTN_WRITE and self._gradients.heads[seen.layer] is None:
            self._routes.of_write(seen.layer, seen.target, seen.value, seen.gradient)

    def _kept(
        self,
        prompts: Sequence[TokenisedPrompt],
        batch: Batch,
        tables: EffectTables,
        scales: FrozenScales,
        directions: Tensor,
    ) -> list[Arrays]:
        strongest, length = tables.strongest(), batch.input_ids.shape[1]
        factors = scales.of(strongest.layer, strongest.neuron, strongest.row, strongest.factor)
        answers = (np.arange(len(prompts)) + 1) * length - 1
        token, logit = self._writes.tokens(strongest, factors)
        self.token_ids |= {*np.unique(token[token >= 0]).tolist()}
        reads = self._reader.of(batch, strongest.row, strongest.layer, strongest.neuron)
        starts = np.array([length - len(prompt.ids) for prompt in prompts])[:, None, None]
        there = strongest.row >= 0
        by_prompt = {
            "strongest_position": np.where(there, strongest.row % length - starts, -1).astype(np.int32),
            "strongest_layer": strongest.layer,
            "strongest_neuron": strongest.neuron,
            "strongest_value": strongest.value,
            "strongest_effect": strongest.effect,
            "strongest_logit": self._writes.logits(strongest, factors, directions, answers),
            "write_token": token,
            "write_logit": logit,
            "read_component": reads.read_component,
        }
        by_token = {
            "effect_neuron": tables.neuron,
            "neuron_effect": tables.effect,
            "mlp_effect": tables.mlp,
            "attn_effect": tables.attn,
            "head_effect": tables.head,
            "neuron_read": torch.from_numpy(reads.neuron_read),
            "read_through": torch.from_numpy(reads.read_through),
            **({} if self._routes is None else self._routes.end()),
        }
        found = []
        for number, prompt in enumerate(prompts):
            end = (number + 1) * length
            rows = slice(end - len(prompt.ids), end)
            own = {name: values[rows].numpy() for name, values in by_token.items()}
            found.append(own | {name: values[number : number + 1] for name, values in by_prompt.items()})
        return found

    def _agree(self, recorded: Tensor, ids: Sequence[str], logits: Tensor) -> None:
        """The logits of the differentiated forward are the recorded ones, bit for bit or within rounding.

        Rounding may change them by as much as a replay of the same batch: of the largest logit.
        """
        if torch.equal(recorded, logits):
            return
        self._exact = False
        dtype = logits.dtype
        loose = _OTHERWISE if self._other_code and dtype.itemsize < 4 else 1e-4
        limit = 4 * unit_roundoff(dtype) + loose
        seen, former = logits.float(), recorded.float().to(logits.device)
        error = ((seen - former).abs().amax(-1) / former.abs().amax(-1)).cpu()
        self._largest = max(self._largest, float(error.max()))
        if not bool((error <= limit).all()):
            worst = int(error.nan_to_num(torch.inf).argmax())
            raise CaptureError(
                "the forward with gradients gives other logits than were recorded: they differ by "
                f"{float(error[worst]):.2g} of the largest, and {limit:.2g} is rounding",
                where=f"prompt {ids[worst]}",
                fix="Load the model with attention implementation eager or in float32, or record without effects.",
            )


def _followed(name: str, values: np.ndarray, prompt: TokenisedPrompt) -> np.ndarray:
    more = len(prompt.ids) - len(values)
    if names.QUANTITIES[name].dims[0] == names.PROMPT or not more:
        return values
    missing = np.nan if values.dtype.kind == "f" else -1
    return np.concatenate([values, np.full((more, *values.shape[1:]), missing, values.dtype)])


def _nothing() -> None:
    """Nothing is left behind by a forward for means that did not fit."""


def _but(kinds: set[tuple[int, str]], receive: Callable[[SiteGradient], None], seen: SiteGradient) -> None:
    """Receive what is not integrated."""
    if (seen.layer, seen.kind) not in kinds:
        receive(seen)
