"""What total effects cost: one forward with gradients and one backward a target, against the plain forward.

SmolLM2-135M in float32, one thread, one prompt of 128 tokens, one pair of target tokens, in turn. With everything that
is kept of them: sums, the strongest of every token and layer, the strongest of the prompt. The last line is the ratio.
"""

from __future__ import annotations

import numpy as np
import torch
from _models import plain_forward, smollm2, some_prompts
from _timing import interleaved, parser, report

from stratoscope.model.search.find import find_sites
from stratoscope.recorder.effects.baseline import Baseline
from stratoscope.recorder.effects.gradients import Gradients
from stratoscope.recorder.effects.strongest import EffectTables
from stratoscope.recorder.input.batches import GivenTokens, make_batch

TOKENS, TARGET, AGAINST, GOAL = 128, 500, 600, 2.2


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=None, help="folder or GGUF file of SmolLM2 (default: the installed one)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    loaded = smollm2(arguments.model)
    ids = torch.tensor(loaded.tokenizer(some_prompts(loaded.tokenizer, 1, TOKENS)[0].text)["input_ids"])[None]
    prompt = GivenTokens(ids[0].numpy().astype(np.int32), np.full(ids.shape[1], 2, np.int8))
    batch = make_batch([prompt], pad_id=0, padding_side="left", device=torch.device("cpu"))
    sites = find_sites(loaded.model, ids[:, :16])
    gradients = Gradients(loaded.model, sites)

    def values(logits: torch.Tensor) -> torch.Tensor:
        return (logits[:, TARGET] - logits[:, AGAINST])[:, None].double()

    def effects() -> None:
        tables = EffectTables(sites, gradients.heads, Baseline(), {}, batch, targets=1, top_k=10, ids=["prompt"])
        gradients.run(batch, values, tables.receive)
        tables.strongest()

    times = interleaved(effects, plain_forward(loaded.model, ids), pairs=arguments.pairs)
    report(times, ours="total effects, one target", theirs="plain forward", goal=GOAL)


if __name__ == "__main__":
    main()
