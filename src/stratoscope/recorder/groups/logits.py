"""Group `logits`: what each part of the model adds to the logits of targets, where the answer begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import BY_SOURCE, LOGITS, QUANTITIES
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites, Site
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import ByLayer, Values
    from stratoscope.recorder.reference.shown import ShownBlock, ShownEnds
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class LogitsGroup(RecordGroup):
    """Of blocks that lack a part, or whose part is no sum of heads or neurons, what is missing is NaN and −1."""

    name = LOGITS
    sees_experts = True
    planted = ("suppressor",)

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """More neurons of either sign than there are."""
        if not sites.d_ff or 2 * top_k <= sites.fewest_neurons:
            return None
        what = (
            f"the top-k is {top_k} of either sign, but at a token {sites.fewest_neurons} neurons are active in an MLP"
        )
        return what, "Use a smaller one."

    def more_sites(self, shared: Shared) -> list[Site]:
        """In front of attention's last linear map, and behind it where a norm follows."""
        from stratoscope.recorder.reduce.passages import split_sites

        return split_sites(shared.model, shared.sites)

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, which needs the targets of each batch."""
        from stratoscope.recorder.reduce.logits import ContributionReducer

        return [ContributionReducer(shared)]

    def undefined(self, sites: ModelSites) -> dict[str, list[int]]:
        """In blocks without what writes."""
        from stratoscope.model.sites import ATTN_WRITE, MLP_WRITE

        return {"attn_logit": sites.without(ATTN_WRITE), "mlp_logit": sites.without(MLP_WRITE)}

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Where nothing is explained in full; what is there is checked by its sum, batch by batch."""
        return np.asarray(np.isnan(values)) if QUANTITIES[name].at_answer or name in BY_SOURCE else None

    def replayed(self, block: ShownBlock) -> Values:
        """Of each block without the final norm's scale."""
        from stratoscope.recorder.reference.contributions import of_block

        maps = block.sites.maps[block.number]
        norms = (maps.attn_post_norm, maps.mlp_post_norm)
        return {} if block.explained is None else of_block(block, block.explained, norms)

    def replayed_end(self, found: ByLayer, shown: ShownEnds) -> ByLayer:
        """With it."""
        return {} if shown.explained is None else shown.explained.whole(found, shown.first, shown.last)

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Sums that hold exactly; a suppressing neuron is planted."""
        return prompt.contributions.logits


GROUP = LogitsGroup()
