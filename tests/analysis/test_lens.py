"""What lenses read: where an answer leads, in which cells parts of a corpus agree, and sentences about it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from lens_traces import PARTS, make_lens_trace
from stratoscope.analysis.lens.finding import Found, find, targets_at
from stratoscope.analysis.lens.leading import leading
from stratoscope.analysis.lens.lenses import Lenses, lenses_of
from stratoscope.analysis.lens.reading import Reading, read, recorded_tokens
from stratoscope.errors import StratoscopeError


def reading_of(trace: xr.Dataset, name: str = "logit") -> Reading:
    return read(trace, lenses_of(trace), name, recorded_tokens(trace, slice(0, trace.sizes["token"])))


def found_in(trace: xr.Dataset, name: str = "logit", token: int = -1) -> Found:
    shown = reading_of(trace, name)
    place = range(len(shown.tokens))[token]
    return find(trace, lenses_of(trace), shown, place, targets_at(trace, shown, place))


@given(st.lists(st.sampled_from([-1, 1, 2, 9]), min_size=1, max_size=7))
def test_an_answer_stays_from_the_first_depth_behind_every_other_one(ranks: list[int]) -> None:
    where = leading(np.array([ranks]))
    leads = [place for place, rank in enumerate(ranks) if rank == 1]
    assert where.first[0] == (leads[0] if leads else -1)
    stays = [place for place in leads if all(rank in (1, -1) for rank in ranks[place:])]
    assert where.stays[0] == (stays[0] if stays else -1)


def test_only_recorded_tokens_are_read_and_the_answer_is_what_the_last_depth_has_first() -> None:
    trace = make_lens_trace(lengths=(6, 5), recorded=2)
    shown = reading_of(trace)
    assert shown.tokens.tolist() == [4, 5, 9, 10]
    assert shown.answer.tolist() == trace["lens_token"].values[[4, 5, 9, 10], -1, 0, 0].tolist()
    assert (shown.answer_rank[:, -1] == 1).all()


def test_a_cell_is_stable_only_where_all_parts_read_the_same_token_and_rank() -> None:
    trace = make_lens_trace(layers=3, recorded=1, lenses=PARTS, changing=0.0, fitted_from=1)
    shown = reading_of(trace, "jacobian")
    assert shown.changes is not None
    assert shown.compared.tolist() == [[False, True, True, False]]  # not the depth that is not fitted, nor the last
    assert (shown.stable_share, shown.changes.any()) == (1.0, False)
    trace["lens_token"].values[-1, 1, 2, 0] += 1  # one half reads another token
    assert reading_of(trace, "jacobian").stable_share == 0.5
    rank = trace["lens_answer_rank"].values[-1, 2]
    rank[:] = (30, 6, 7, 8)  # the noise of far ranks is none
    assert reading_of(trace, "jacobian").stable_share == 0.5
    rank[:] = (30, 6, 5, 8)
    assert reading_of(trace, "jacobian").stable_share == 0.0
    assert reading_of(trace).stable_share is None  # the logit lens has no corpus


def test_a_last_depth_in_which_parts_differ_would_not_lift_the_share() -> None:
    trace = make_lens_trace(layers=1, recorded=1, lenses=PARTS, fitted_from=1)
    assert reading_of(trace, "jacobian").stable_share is None


def ranked(*ranks: int, lens: int = 0, of: int = 1) -> xr.Dataset:
    """A trace whose answer has these ranks at the last token, by depth."""
    trace = make_lens_trace(layers=len(ranks) - 1, recorded=1, lenses=PARTS[:of])
    trace["lens_answer_rank"].values[-1, :, lens] = ranks
    return trace


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ((9, 4, 1, 1), "leads from D2 on, at every depth up to D3; right below it has rank 4"),
        ((1, 4, 1, 1), "first leads at D0, and from D2 on at every depth up to D3; right below it has rank 4"),
        ((9, 1, 7, 1), "first leads at D1, but not at the depth right below D3, the model's own output"),
        ((9, 8, 7, 1), "is the likeliest at D3 alone, which is the model's own output"),
        ((1, 1, 1, 1), "leads from D0 on, at every depth up to D3"),
        ((-1, -1, 1, 1), "leads from D2 on, at every depth up to D3"),
    ],
)
def test_sentences_say_no_more_than_the_ranks(ranks: tuple[int, ...], said: str) -> None:
    sentences = [*found_in(ranked(*ranks)).sentences()]
    assert sentences[1].startswith("The logit lens: “")
    assert sentences[1].endswith(f"” {said}.")


def test_the_other_lens_is_asked_at_the_depth_where_the_answer_begins_to_stay() -> None:
    trace = ranked(9, 4, 1, 1, lens=1, of=2)
    trace["lens_answer_rank"].values[-1, :, 0] = (50, 40, 1_234, 1)
    found = found_in(trace, "jacobian")
    assert (found.stays_from, found.other_lens, found.other_rank) == (2, "logit", 1_234)
    assert "At D2 the logit lens gives it rank 1,234." in found.sentences()


def test_depths_that_were_not_read_are_counted_and_never_lead() -> None:
    trace = make_lens_trace(layers=4, recorded=1, lenses=PARTS, fitted_from=3)
    found = found_in(trace, "jacobian")
    assert found.unread == 3
    assert found.first_leads is not None
    assert found.first_leads >= 3
    assert "(3 depths not read)" in [*found.sentences()][1]


def test_a_target_has_its_rank_where_the_answer_begins_to_stay() -> None:
    trace = make_lens_trace(layers=3, recorded=1, targets=2)
    trace["lens_answer_rank"].values[-1, :, 0] = (9, 1, 1, 1)
    trace["lens_target_rank"].values[-1, :, 0, 0] = (8, 7, 3, 20)
    (one, _) = found_in(trace).targets
    assert (one.rank_where_answer_stays, one.best_rank, one.best_depth, one.last_rank) == (7, 3, 2, 20)
    assert found_in(trace).record()["targets"][0]["best_depth"] == 2


def test_a_trace_without_lenses_names_the_command_that_records_them() -> None:
    with pytest.raises(StratoscopeError, match="capture MODEL --prompts FILE --record lens"):
        lenses_of(make_lens_trace().drop_vars("lens_token"))


def test_lenses_are_named_by_the_plan_and_parts_belong_to_theirs() -> None:
    lenses = Lenses((*PARTS, "jacobian, corpus code", "jacobian, corpus prose"))
    assert (lenses.whole, lenses.usual, lenses.other("jacobian")) == (("logit", "jacobian"), "jacobian", "logit")
    assert lenses.parts("jacobian") == (2, 3, 4, 5)
    assert lenses.parts_in_words("jacobian") == "on two halves and on each of 2 corpora"
    assert lenses.parts("logit") == ()
    with pytest.raises(StratoscopeError, match="tuned"):
        lenses.place("tuned")
