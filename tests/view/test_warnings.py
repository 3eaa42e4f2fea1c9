"""What a picture must say, or must not do, when its input is unusual."""

from __future__ import annotations

from pathlib import Path

import pytest
from view_traces import make_trace

from stratoscope import heatmap, peaks3d
from stratoscope.errors import InputError
from stratoscope.view.heatmap import heatmap_spec
from stratoscope.view.inputs import open_input

HEAD = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"


def test_a_picture_of_an_unfinished_trace_says_so() -> None:
    trace = make_trace()
    assert not any("NOT COMPLETE" in note.text for note in heatmap_spec(trace).notes)
    trace.attrs |= {"state": "recording", "plan": {"prompts": 1500}}
    (note,) = (note for note in heatmap_spec(trace).notes if "NOT COMPLETE" in note.text)
    assert note.severity == "warning"
    assert note.text.endswith(f"{trace.sizes['prompt']} of 1,500 planned prompts.")


def test_negative_imported_values_are_drawn_below_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEAD + "0,a,1,3,-3\n0,a,1,4,1.0\n1,b,1,4,2.0\n2,c,1,4,-1\n")
    heatmap(file, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_every_named_csv_file_is_drawn_even_of_one_class(tmp_path: Path) -> None:
    files = [tmp_path / folder / "run.csv" for folder in "ab"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(HEAD + f"0,a,1,3,{number + 1}\n1,b,1,4,2.0\n")
    spec = heatmap_spec(open_input(files))
    assert len(spec.content["panels"]) == 2


def test_a_picture_is_never_written_into_a_trace(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{}")
    (tmp_path / "inner").mkdir()
    for verb, name in ((heatmap, "a.png"), (peaks3d, "a.html")):
        with pytest.raises(InputError, match="is inside a trace"):
            verb(make_trace(), tmp_path / "inner" / name)
