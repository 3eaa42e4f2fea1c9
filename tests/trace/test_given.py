"""Arguments as people give them in Python: each works, or is refused in words; none is taken for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stratoscope
from stratoscope.errors import InputError
from stratoscope.trace.numbers import choose_layers

SMALL = {"prompts": 2, "layers": 3, "d_model": 8, "d_ff": 12, "heads": 2, "top_k": 2}


class Somewhere:
    """A path of neither str nor pathlib."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize(
    "record", ["norms", "norms,peaks", " peaks , norms ", ["norms"], {"norms", "peaks"}, np.array(["norms", "peaks"])]
)
def test_record_groups_are_one_text_or_listed(record):
    trace = stratoscope.simulate(**SMALL, record=record)
    assert "mlp_out_norm" in trace
    assert ("peak_value" in trace) == ("peaks" in str(record))


@pytest.mark.parametrize(
    ("record", "named"), [("norm", "'norm'"), (["norms", 3], "3"), ("", "no record group"), (None, "None")]
)
def test_what_is_no_record_group_is_named_whole(record, named):
    with pytest.raises(InputError, match=named):
        stratoscope.simulate(**SMALL, record=record)


def test_numbers_of_numpy_are_numbers_and_the_trace_can_be_written(tmp_path):
    sizes = {name: np.int64(size) for name, size in SMALL.items()}
    stratoscope.simulate(Somewhere(tmp_path / "t"), **sizes, tokens=(np.int32(4), 6), seed=np.uint8(3))
    same = stratoscope.simulate(**SMALL, tokens=[4, 6], seed=3)
    np.testing.assert_array_equal(
        stratoscope.open_trace(Somewhere(tmp_path / "t"))["mlp_out_norm"], same["mlp_out_norm"]
    )


@pytest.mark.parametrize(
    "wrong", [{"prompts": "2"}, {"layers": 2.0}, {"seed": True}, {"tokens": "4-6-8"}, {"tokens": (1, 2, 3)}]
)
def test_what_is_no_whole_number_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        stratoscope.simulate(**{**SMALL, **wrong})


@pytest.mark.parametrize(
    "layers", ["1-2", ["1", "2"], ["1-2"], [1, 2], (1, 2), {1, 2}, range(1, 3), np.array([1, 2]), iter([1, 2])]
)
def test_layers_are_written_or_listed(layers):
    assert choose_layers(range(3), layers).tolist() == [1, 2]


@pytest.mark.parametrize("layers", [1.0, [1.5], slice(0, 2), [True], "1-x"])
def test_layers_are_never_rounded_to_others(layers):
    with pytest.raises(InputError, match="layers"):
        choose_layers(range(3), layers)


def drawn(shown):
    """The values and the words of a picture."""
    return [
        (
            [text.get_text() for text in axes.texts],
            [repr(np.asarray(artist.get_array()).tolist()) for artist in (*axes.images, *axes.collections)],
        )
        for axes in shown.axes
    ]


@pytest.fixture(scope="module")
def trace():
    return stratoscope.simulate(**{**SMALL, "prompts": 4})


class TestPictures:
    @pytest.mark.parametrize(
        ("asked", "plain"),
        [
            ({"prompt": np.int64(1)}, {"prompt": 1}),
            ({"prompt": np.array([0, 2])}, {"prompt": [0, 2]}),
            ({"prompt": (index for index in [0])}, {"prompt": [0]}),
            ({"span": (name for name in ["user"])}, {"span": "user"}),
            ({"prompt_class": np.array(["critical"])}, {"prompt_class": "critical"}),
        ],
    )
    def test_what_is_shown_may_be_asked_for_in_any_type(self, trace, asked, plain):
        shown = drawn(stratoscope.heatmap(trace, **asked))
        assert shown == drawn(stratoscope.heatmap(trace, **plain))
        assert shown != drawn(stratoscope.heatmap(trace)), "what was asked for is not shown"

    def test_a_head_and_a_threshold_may_be_numbers_of_numpy(self, trace):
        shown = drawn(stratoscope.engagement(trace, head=np.int64(1)))
        assert shown == drawn(stratoscope.engagement(trace, head=1))
        assert shown != drawn(stratoscope.engagement(trace, head=0))
        shown = stratoscope.peaks3d(trace, threshold=np.float32(0.5))
        assert shown == stratoscope.peaks3d(trace, threshold=0.5)
        assert shown != stratoscope.peaks3d(trace)

    @pytest.mark.parametrize(
        ("verb", "wrong"),
        [
            ("heatmap", {"prompt": 1.0}),
            ("heatmap", {"quantity": ["mlp_out_norm"]}),
            ("engagement", {"head": [0]}),
            ("peaks3d", {"threshold": "0.1"}),
        ],
        ids=str,
    )
    def test_what_cannot_be_meant_is_refused_in_words(self, trace, verb, wrong):
        with pytest.raises(InputError, match=next(iter(wrong))):
            getattr(stratoscope, verb)(trace, **wrong)


def test_one_part_alone_is_a_list_of_one(tmp_path):
    stratoscope.simulate(tmp_path / "t", **SMALL)
    for parts in (tmp_path / "t", str(tmp_path / "t"), [Somewhere(tmp_path / "t")]):
        with pytest.raises(InputError, match="not a part of a recording"):
            stratoscope.merge(parts, tmp_path / "out")
