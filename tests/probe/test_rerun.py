"""The model of a trace runs over its prompts again: the same tokens, the same values, and copies of rows in one batch."""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import byte_tokenizer, tiny  # noqa: E402

from stratoscope.errors import InputError  # noqa: E402
from stratoscope.names import SPANS  # noqa: E402
from stratoscope.probe.rerun import Rerun, model_of  # noqa: E402
from stratoscope.progress import silent  # noqa: E402

pytestmark = pytest.mark.model
QUANTITIES = ("mlp_out_norm", "resid_norm", "attn_entropy")  # the last one is not recorded
Record = Callable[..., Any]


def test_a_rerun_records_what_the_trace_holds_and_copies_of_a_row_are_that_row(record: Record) -> None:
    model = tiny("Llama")
    texts = ["one", "two and three", "four", "five and six", "seven", "eight", "nine or ten", "not run again"]
    trace = record(model, "t", texts=texts, floor=False, batch_size=3)
    rerun = Rerun(model_of(trace, model, byte_tokenizer(), silent), trace, quantities=QUANTITIES, most_prompts=7)
    batches = list(rerun.batches())
    assert sorted(place for chosen, _ in batches for place in chosen) == rerun.prompts == list(range(7))
    assert rerun.quantities == ["mlp_out_norm", "resid_norm"]
    with rerun.observer() as observer:
        for chosen, batch in batches:
            found, logits = rerun.record(observer, batch)
            rerun.compare(found, chosen)
            here = np.concatenate([rerun.places[rerun.starts[one] : rerun.starts[one + 1]] for one in chosen])
            np.testing.assert_allclose(found["resid_norm"], trace["resid_norm"].values[here], rtol=1e-6)
        copied = rerun.record(observer, rerun.batch(chosen, copies=3))
    assert rerun.agreement.keys() == found.keys()
    assert max(rerun.agreement.values()) < 1e-6
    torch.testing.assert_close(copied[1], logits.repeat_interleave(3, dim=0))
    rerun.compare({name: values * 1.5 for name, values in found.items()}, chosen)
    assert min(rerun.agreement.values()) == pytest.approx(1 / 3)


def test_what_was_generated_is_not_given_and_another_model_is_refused(record: Record) -> None:
    model = tiny("Llama")
    trace = record(model, "t", floor=False, record=("norms",)).load()
    ends = np.flatnonzero(np.diff(trace["prompt"].values, append=-1))
    span = trace["span"].values.copy()
    span[ends] = SPANS.index("generated")
    answered = trace.assign_coords(span=("token", span))
    rerun = Rerun(model_of(answered, model, byte_tokenizer(), silent), answered, quantities=QUANTITIES, most_prompts=64)
    assert not np.isin(ends, rerun.places).any()
    assert len(rerun.places) == trace.sizes["token"] - trace.sizes["prompt"]
    other = tiny("Llama")
    other.lm_head.weight.data.add_(1)
    with pytest.raises(InputError, match="not the model"):
        model_of(trace, other, byte_tokenizer(), silent)
