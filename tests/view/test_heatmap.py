"""The heatmap: what is drawn, on which scale, and what the axes hold for whoever goes on with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from sheets import words
from view_traces import Factory

from drawn_maps import colouring, high, maps_of, marks, sheet_of
from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.heatmap import heatmap, heatmap_of_array, heatmap_spec
from stratoscope.view.spec.look import Look


def test_the_axes_hold_the_values_themselves(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(9,), layers=5)
    (axes,) = heatmap(dataset).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), dataset["mlp_out_norm"].values.T)
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-0.5, 8.5, -0.5, 4.5)


def test_axes_have_the_tokens_and_layers_as_their_ticks(trace_of: Factory) -> None:
    (axes,) = heatmap(trace_of(lengths=(4,), layers=3, texts=["How", " do", " I", "?"])).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["How", "·do", "·I", "?"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["L0", "L1", "L2"]


def test_one_map_and_several_give_a_figure_with_the_maps_as_its_axes(trace_of: Factory) -> None:
    for prompt, maps in ((0, 1), ([1, 0], 2)):
        figure = heatmap(trace_of(lengths=(12, 9)), prompt=prompt)
        assert isinstance(figure, Figure)
        assert len(figure.axes) == maps
    assert [len(axes.get_xticks()) for axes in figure.axes] == [9, 12], "not in reading order"


def test_panels_share_one_scale(trace_of: Factory) -> None:
    one, other = heatmap(trace_of()).axes
    assert (one.images[0].norm.vmin, one.images[0].norm.vmax) == (other.images[0].norm.vmin, other.images[0].norm.vmax)


def test_the_first_token_does_not_own_the_scale_unless_asked(trace_of: Factory) -> None:
    dataset = trace_of(sink=1e4)
    usual, with_first = heatmap_spec(dataset), heatmap_spec(dataset, look=Look("log", first_token=True))
    body = dataset["mlp_out_norm"].values[dataset["position"].values > 0]
    assert np.quantile(body, 0.9) <= high(usual) <= np.quantile(body, 0.99) * 1.001
    assert high(with_first) == pytest.approx(float(dataset["mlp_out_norm"].max()))
    assert marks(usual).badges
    assert not marks(with_first).badges


def test_a_slice_without_the_first_token_marks_no_first_token(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12,)).isel(token=slice(4, None))
    assert maps_of(heatmap_spec(dataset)).panels[0].first == ()
    assert maps_of(heatmap_spec(trace_of(lengths=(12,)), Selection(span="user"))).panels[0].first == ()


def test_the_default_is_a_log_scale_for_norms_and_zero_centred_for_signed(trace_of: Factory) -> None:
    dataset = trace_of(quantities=("mlp_out_norm", "mlp_write_cos", "peak_share"))
    limits = {name: colouring(heatmap_spec(dataset, quantity=name)).limits for name in dataset.data_vars}
    assert limits["mlp_out_norm"].kind == "log"
    assert limits["peak_share"].kind == "linear"
    assert limits["mlp_write_cos"].kind == "diverging"
    assert limits["mlp_write_cos"].low == -limits["mlp_write_cos"].high
    assert maps_of(heatmap_spec(dataset)).quantities[0].quantity.name == defaults.QUANTITY


def test_a_quantity_that_is_zero_says_so_and_is_not_called_a_difference(trace_of: Factory) -> None:
    dataset = trace_of(quantities=("mlp_write_cos",))
    dataset["mlp_write_cos"][:] = 0
    told = words(sheet_of(heatmap_spec(dataset)))
    assert "All zero" in told
    assert "no difference" not in told


def test_an_empty_quantity_says_so(trace_of: Factory) -> None:
    dataset = trace_of()
    dataset["mlp_out_norm"][:] = np.nan
    text = words(sheet_of(heatmap_spec(dataset)))
    assert "Nothing recorded here" in text
    assert "Grey hatching" in text


def test_missing_cells_show_the_hatching_beneath(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(4,), layers=2)
    dataset["mlp_out_norm"][1, 0] = np.nan
    (axes,) = heatmap(dataset).axes
    (image,) = axes.images
    colours = image.to_rgba(image.get_array())
    assert colours[0, 1, 3] == 0
    assert (np.delete(colours[..., 3].ravel(), 1) == 1).all()
    assert axes.patch.get_hatch()


def test_per_layer_limits_are_said_to_forbid_comparing_layers(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(layers=3), look=Look("per-layer"))
    assert colouring(spec).limits.low.shape == (3,)
    assert "layers are not comparable" in words(sheet_of(spec))


def test_an_import_says_that_it_is_a_mean_and_what_its_index_means(import_of: Factory) -> None:
    for axis, meaning in (("unknown", "not known"), ("neuron", "MLP neurons"), ("residual", "residual coordinates")):
        spec = heatmap_spec(import_of(axis=axis))
        assert spec.title == "Mean imported Activation_Norm by token and layer"
        assert meaning in spec.subtitle
    assert maps_of(spec).quantities[0].quantity.rows == tuple(range(22, 32))


def test_two_csv_files_stand_side_by_side_on_one_scale(tmp_path: Path) -> None:
    for name, size in (("critical", 1.0), ("neutral", 2.0)):
        rows = [
            f"{token},t{token},{layer},{k},{size + token + k}"
            for token in range(3)
            for layer in (22, 31)
            for k in (0, 1)
        ]
        (tmp_path / f"{name}.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n" + "\n".join(rows))
    one, other = heatmap([tmp_path / "critical.csv", tmp_path / "neutral.csv"], tmp_path / "out.png").axes
    np.testing.assert_array_equal(one.images[0].get_array(), np.tile([1.5, 2.5, 3.5], (2, 1)))
    np.testing.assert_array_equal(other.images[0].get_array(), np.tile([2.5, 3.5, 4.5], (2, 1)))
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_an_array_is_drawn_without_a_trace() -> None:
    (axes,) = heatmap_of_array(np.arange(1.0, 13).reshape(6, 2), labels=list("abcdef"), rows=[7, 9], log=True).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["L7", "L9"]
    assert axes.images[0].norm.vmax <= 12


def test_drawing_an_array_loads_no_library_that_reads_traces() -> None:
    script = (
        "import sys, numpy as np; from stratoscope.view.maps.heatmap import heatmap_of_array;"
        "heatmap_of_array(np.ones((30, 4)));"
        "print(sorted({'xarray', 'pandas', 'zarr', 'plotly', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pyplot_is_left_alone() -> None:
    script = (
        "import sys, numpy as np; from stratoscope.view.maps.heatmap import heatmap_of_array;"
        "heatmap_of_array(np.ones((30, 4))); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_users_style_does_not_change_the_picture(trace_of: Factory, tmp_path: Path) -> None:
    heatmap(trace_of(), tmp_path / "plain.png")
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.family": "serif", "axes.facecolor": "red", "image.cmap": "jet", "xtick.major.size": 20,
                         "axes.grid": True, "figure.autolayout": True, "savefig.bbox": "tight"}):  # fmt: skip
        heatmap(trace_of(), tmp_path / "styled.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_the_figure_by_itself(trace_of: Factory) -> None:
    assert heatmap(trace_of(), prompt=0)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "words_"),
    [
        ({"quantity": "resid"}, "no quantity"),
        ({"theme": "sepia"}, "light, dark"),
        ({"scale": "sqrt"}, "robust"),
        ({"layers": "99"}, "no layer 99"),
        ({"prompt": "x"}, "no prompt called"),
    ],
)
def test_a_wrong_choice_is_answered_in_one_line(trace_of: Factory, wrong, words_: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words_) as caught:
        heatmap(trace_of(), **wrong)
    assert "\n" not in str(caught.value)


def test_a_simulated_trace_from_disk_is_drawn_and_named_as_one(tmp_path: Path) -> None:
    from stratoscope.recorder.simulate import simulate

    simulate(tmp_path / "t.zarr", prompts=4, layers=4, d_model=16, d_ff=32, heads=2, top_k=2)
    for quantity in ("mlp_out_norm", "resid_norm", "peak_value", "attn_received_nosink"):
        figure = heatmap(tmp_path / "t.zarr", quantity=quantity)
        written = [text.get_text() for text in figure.texts]
        assert "SIMULATED" in written
        assert any("no model made these numbers" in text for text in written)
