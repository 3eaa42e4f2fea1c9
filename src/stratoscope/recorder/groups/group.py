"""What a record group says of itself; whatever it does not say is as it stands here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import quantities_of

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites, Site
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import ByLayer, States, Values
    from stratoscope.recorder.reference.shown import ShownBlock, ShownEnds
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class RecordGroup:
    """All that is known of one record group besides the rows of `names.QUANTITIES`.

    Nothing here imports torch: what needs it is imported by the methods that a recording or a replay calls.

    Attributes
    ----------
    name
        As `--record` has it.
    needs_mlp
        Whether a model without MLPs has nothing of it.
    sees_experts, sees_attention
        Whether it reduces mixtures of experts, and what attention does.
    pairs
        Names of the pairs of rows whose lengths and product it has measured (`reduce.products`).
    quotients
        Its quantities that are undefined where they would divide by zero; they are not checked to be finite.
    planted
        Kinds of planted things that a simulation of it shows.
    """

    name = ""
    needs_mlp = sees_experts = sees_attention = False
    pairs: tuple[str, ...] = ()
    quotients: tuple[str, ...] = ()
    planted: tuple[str, ...] = ()

    # --- recorded ---------------------------------------------------------------------------------------------------

    def observed(self, record: Collection[str]) -> bool:
        """Whether it is observed when these groups are recorded."""
        return self.name in record

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """Why it cannot be recorded of a model, and what to do instead; None where it can."""
        return None

    def reducers(self, shared: Shared) -> list[Reducer]:
        """What turns the tensors of sites into its quantities; none where attention's observer does."""
        return []

    def more_sites(self, shared: Shared) -> list[Site]:
        """Places that it watches besides those of the blocks."""
        return []

    def streams(self, sites: ModelSites) -> list[str]:
        """Its quantities that are too large to be held, of this model."""
        return [quantity.name for quantity in quantities_of([self.name]) if quantity.streamed]

    def shown_by_eager(self, name: str) -> bool:
        """Whether only eager attention shows what a quantity of its own is made of, of a prompt without padding."""
        return self.sees_attention

    # --- where it is undefined --------------------------------------------------------------------------------------

    def undefined(self, sites: ModelSites) -> dict[str, list[int]]:
        """Its quantities that may be NaN in whole layers by their definition, and in which."""
        return {}

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Where NaN stands by definition in other cells, as a mask that fits `values`; None: nowhere."""
        return None

    # --- replayed ---------------------------------------------------------------------------------------------------

    def replayed(self, block: ShownBlock) -> Values:
        """Its quantities of one block, by the formulas of `proof.formulas`, which share nothing with the reducers."""
        return {}

    def replayed_end(self, found: ByLayer, shown: ShownEnds) -> ByLayer:
        """Its quantities that are known only when the model has ended; `found`: what `replayed` gave of the blocks."""
        return {}

    def replayed_stream(self, states: States) -> ByLayer:
        """Its quantities of the residual stream, whose states stand before each block and behind the last."""
        return {}

    # --- simulated --------------------------------------------------------------------------------------------------

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Its quantities of a simulated prompt that are held, [token or prompt, layer, …]."""
        return {}

    def simulated_rows(self, prompt: SimulatedPrompt) -> Iterator[tuple[str, int, int, np.ndarray]]:
        """Rows of its streamed quantities: name, layer, number of the first row in the prompt, [row, width]."""
        return iter(())
