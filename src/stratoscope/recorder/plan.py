"""Everything that decides the values of a recording, as pure data that is stored in the trace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stratoscope.recorder.input.grouping import ANY_LENGTH, Batching, Together
from stratoscope.recorder.prompts.prompt import Prompt


@dataclass(frozen=True)
class CapturePlan:
    """What is recorded and how; two recordings with equal plans and models hold equal values.

    Attributes
    ----------
    record
        Record groups, in the order of `names.RECORD_GROUPS`.
    top_k
        Peaks per token and layer.
    batch_size, window
        Prompts per forward, and the run of prompts inside which batches are made of prompts of similar length; both
        at most, as long prompts come in shorter runs (`grouping.WINDOW_TOKENS`).
    chat
        Whether raw text was put into the chat template.
    dtype, padding_side, attention
        The model's dtype, where padding stands, and the attention implementation that ran.
    prompts, tokens, prompts_sha256
        How many, tokens of answers not counted, and the hash of the prompts with their ids and labels.
    together
        Beside which others a prompt runs: those of any length, of equal length, or none, so that its values depend on
        no other (`grouping.Batching`).
    longest_short, shortest_long
        The lengths up to and from which prompts run together, where positions depend on the longest; else None.
    generate, generation, seed
        The most tokens of an answer, every setting that decides what is written, and the seed of sampling; None where
        nothing is generated.
    openers
        `{"text", "token_ids"}` of each opener on the dimension `opener`; None where there is none.
    refusal_patterns
        Openings by which a generated answer counts as a refusal.
    targets
        `{"text", "token_id", "against", "against_id"}` of each target on the dimension `target`, `against_id` −1 = the
        mean over the vocabulary; "top" = of each prompt the likeliest token against the second; None where no logit is
        explained.
    answer_prefix, positions
        What stands behind every prompt as the beginning of its answer, and whether the strongest neurons were explained
        at its last token only ("answer") or at every token ("all"), and likewise what lenses read, at its last tokens;
        None where neither is recorded.
    lenses, lens_file
        Names of the lenses on the dimension `lens`, and what the fitted one of them is; None where nothing is read.
    baseline, mean_of, effect_steps, calibration
        What total effects are counted from ("zero" or "mean"), the uuid of the trace that holds the means where that
        is not the recording itself, at how many points of the way there gradients were taken, and how many effects of
        each kind were compared with ablations; None where no effects are recorded.
    date
        The day that the chat template was told, YYYY-MM-DD; None where it does not write the date.
    part, part_prompts
        Of a recording in parts, which of how many, from 1, and the places of its first and behind its last prompt;
        everything else is that of the whole. None where it is one recording.
    """

    record: tuple[str, ...]
    top_k: int
    batch_size: int
    window: int
    chat: bool
    dtype: str
    padding_side: str
    attention: str
    prompts: int
    tokens: int
    prompts_sha256: str
    together: Together = ANY_LENGTH
    longest_short: int | None = None
    shortest_long: int | None = None
    generate: int | None = None
    generation: dict[str, Any] | None = None
    seed: int | None = None
    openers: list[dict[str, Any]] | None = None
    refusal_patterns: list[str] | None = None
    targets: list[dict[str, Any]] | str | None = None
    answer_prefix: str | None = None
    positions: str | None = None
    lenses: list[str] | None = None
    lens_file: dict[str, Any] | None = None
    baseline: str | None = None
    mean_of: str | None = None
    effect_steps: int | None = None
    calibration: int | None = None
    date: str | None = None
    part: list[int] | None = None
    part_prompts: list[int] | None = None

    @property
    def batching(self) -> Batching:
        """Which prompts run together."""
        return Batching(self.batch_size, self.together, self.longest_short, self.shortest_long)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; what is None is left out."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {**known, "record": list(self.record)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CapturePlan:
        """The plan stored in a trace."""
        known = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        return cls(**{**known, "record": tuple(document["record"])})


def prompts_sha256(prompts: Iterable[Prompt]) -> str:
    """Hash of the prompts, their ids, classes, pairs and groups, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(asdict(prompt), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
