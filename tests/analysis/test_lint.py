"""Every check of a trace: a trace that it finds, one that it leaves alone, and where its words end up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from contribution_traces import model
from typer.testing import CliRunner

import stratoscope
from sentences import is_sentence
from stratoscope import names
from stratoscope.analysis.contrast.contrast import contrast
from stratoscope.analysis.lint.lint import all_checks, applicable, lint
from stratoscope.doors.cli import app
from stratoscope.trace.write.from_dataset import write_dataset
from stratoscope.view.maps.heatmap import heatmap_spec

PAGE = (Path(__file__).parents[2] / "docs" / "pitfalls.md").read_text("utf-8")
Change = Callable[[xr.Dataset], xr.Dataset]


def base(**options: Any) -> xr.Dataset:
    """A trace that says it was recorded; nothing was planted in its first three layers."""
    shape: dict[str, Any] = {"prompts": 16, "tokens": 14, "layers": 8, "d_ff": 32, "heads": 2, "seed": 1, **options}
    trace = stratoscope.simulate(**shape)
    for name in trace.data_vars:
        trace[name].attrs["source"] = names.REAL
    return trace.assign_attrs(source=names.REAL, notes=[])


@pytest.mark.parametrize("odd", [3, True, "x", [None], [{"token_ids": 3}], {"a": 1}])
def test_attributes_of_another_type_do_not_stop_a_check(odd: object) -> None:
    trace = stratoscope.simulate(prompts=2, layers=2, d_ff=16, heads=1, tokens=4)
    model, plan = {**trace.attrs["model"], "mlps": odd}, {**trace.attrs["plan"], "openers": odd}
    assert lint(trace.assign_attrs(model=model, plan=plan)).attrs["summary"]["checks"] > 0


def column(dim: str, values: Any) -> xr.Variable:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return xr.Variable((dim,), found, fastpath=True)


def spans(trace: xr.Dataset, span: str, which: Any) -> xr.Dataset:
    """The trace with some tokens in another span."""
    values = trace["span"].values.copy()
    values[which] = names.SPANS.index(span) if span else -1
    return trace.assign_coords(span=("token", values))


def scaled(trace: xr.Dataset, name: str, factor: Any) -> xr.Dataset:
    return trace.assign({name: trace[name] * factor})


def with_floor(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign(floor_mlp_out_norm=("layer", np.full(8, 1e-3, "float32")))


def imported(words: str, *, positions: Any = None, sign: float = 1.0) -> xr.Dataset:
    """One imported prompt of one-letter words, one row each."""
    count = len(words)
    return xr.Dataset(
        {"imported_norm": ("row", sign * np.linspace(1, 2, count))},
        {
            "prompt": ("token", np.zeros(count, "int32")),
            "position": ("token", np.arange(count, dtype="int32") if positions is None else np.asarray(positions)),
            "token_id": ("token", np.full(count, -1, "int32")),
            "span": ("token", np.full(count, names.SPANS.index("user"), "int8")),
            "text": column("token", list(words)),
            "prompt_id": column("prompt", ["a"]),
            "layer": ("layer", [0]),
        },
        {"source": names.IMPORTED},
    )


def classes(trace: xr.Dataset, of_first: int, *, paired: bool = False) -> xr.Dataset:
    """The first prompts of one class, the others of another."""
    count = trace.sizes["prompt"]
    pairs = trace["pair"].values if paired else [""] * count
    labels = ["one"] * of_first + ["other"] * (count - of_first)
    return trace.assign_coords(prompt_class=column("prompt", labels), pair=column("prompt", pairs))


def longer_critical(trace: xr.Dataset) -> xr.Dataset:
    """Neutral prompts without their last tokens."""
    position, prompt = trace["position"].values, trace["prompt"].values
    return trace.isel(token=np.flatnonzero((prompt % 2 == 0) | (position < 10)))


def doubled(trace: xr.Dataset) -> xr.Dataset:
    ids, position = trace["token_id"].values.copy(), trace["position"].values
    ids[position <= 1] = 1
    return spans(trace.assign_coords(token_id=("token", ids)), "special", position <= 1)


def first(trace: xr.Dataset) -> Any:
    return trace["position"].values == 0


def openers(trace: xr.Dataset, token_ids: list[int]) -> xr.Dataset:
    plan = {"openers": [{"text": "Sorry", "token_ids": token_ids}]}
    odds = ("prompt", "opener"), np.zeros((trace.sizes["prompt"], 1), "float32")
    return trace.assign(opener_log_odds=odds).assign_attrs(plan=plan)


def many_neurons(trace: xr.Dataset, width: int) -> xr.Dataset:
    """Neurons of nothing but noise; every pair is one unit."""
    values = np.random.default_rng(0).normal(size=(trace.sizes["prompt"], 8, width)).astype("float32")
    alone = trace.assign_coords(group=column("prompt", [""] * trace.sizes["prompt"]))
    return alone.drop_vars(["prompt_mean", "prompt_max", "prompt_min"]).assign(
        prompt_mean=(("prompt", "layer", "neuron"), values)
    )


def flat(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign(mlp_write_norm=trace["mlp_write_norm"] * 0 + 8.0)


def normalised(trace: xr.Dataset) -> xr.Dataset:
    values = trace["resid_norm"].values.copy()
    values[:, -1] = 20.0
    return trace.assign(resid_norm=(("token", "depth"), values))


def level(trace: xr.Dataset) -> xr.Dataset:
    """No norm rises from layer to layer."""
    raw = ("mlp_out_norm", "mlp_write_norm", "attn_write_norm", "neuron_norm", "resid_norm")
    return trace.assign({name: trace[name] / trace[name].median("token") for name in raw})


def rising(trace: xr.Dataset) -> xr.Dataset:
    return scaled(level(trace), "mlp_out_norm", xr.DataArray(np.arange(1.0, 9), dims="layer"))


def with_experts(trace: xr.Dataset) -> xr.Dataset:
    mlps = [{"layers": [0, 7], "experts": 4, "expert_width": 8, "dense_width": 0}]
    return trace.assign_attrs(model={**trace.attrs["model"], "mlps": mlps})


def one_array(trace: xr.Dataset, source: str) -> xr.Dataset:
    changed = trace.copy()
    changed["mlp_out_norm"] = trace["mlp_out_norm"].assign_attrs(source=source)
    return changed


def routed(trace: xr.Dataset) -> xr.Dataset:
    chosen = np.zeros((trace.sizes["token"], 8, 1), "int32")
    return with_experts(trace).assign(router_expert=(("token", "layer", "choice"), chosen))


def without_first(trace: xr.Dataset) -> xr.Dataset:
    """The trace without its sinks, and with one size for everything else."""
    rest = trace.isel(token=~first(trace))
    return rest.assign(mlp_out_norm=rest["mlp_out_norm"] * 0 + 1)


def covering(trace: xr.Dataset, share: float) -> xr.Dataset:
    return trace.assign(peak_share=trace["peak_share"] * 0 + share)


def noted(identity: str, severity: str = "warning") -> xr.Dataset:
    """A trace that says something of itself."""
    return base().assign_attrs(notes=[{"id": identity, "severity": severity, "text": "Two weights were not used."}])


EFFECTS = ["attn_effect", "mlp_effect"]


def filled(trace: xr.Dataset, name: str) -> xr.Dataset:
    return trace.assign({name: xr.full_like(trace[name], 0.5)})


def own_targets(tokens: list[int]) -> xr.Dataset:
    ids = np.array(tokens, "int32")[:, None]
    trace = model(tuned=False, plan={"targets": "top"})
    return trace.assign(target_token=(("prompt", "target"), ids), against_token=(("prompt", "target"), ids + 9))


def calibrated(trace: xr.Dataset) -> xr.Dataset:
    found = {name: [0.9, 0.8, 0.95] for name in ("spearman", "sign", "slope")}
    of = {"kind": "mlp", "baseline": "zero", "target": 0, "count": 64, "decided": 60, **found}
    return trace.assign_attrs(receipt={"calibration": {"prompts": ["a"], "agreement": [of]}})


def lensed() -> xr.Dataset:
    """A logit lens and a fitted one with its halves."""
    return stratoscope.simulate(prompts=2, tokens=6, layers=4, d_ff=24, heads=1, top_k=1, record="lens")


CASES: dict[str, tuple[Callable[[], xr.Dataset], Callable[[], xr.Dataset]]] = {  # check: found, left alone
    "short_prompts": (lambda: base(tokens=6), lambda: base(tokens=30)),
    "grouped_by_text": (lambda: imported("abcdefghi"), lambda: imported("hello abc")),
    "more_tokens_than_columns": (lambda: base(tokens=100), base),
    "unequal_twins": (lambda: longer_critical(base()), base),
    "too_few_prompts": (lambda: base(prompts=4), base),
    "unequal_lengths": (lambda: longer_critical(base()), base),
    "special_tokens": (lambda: doubled(base()), base),
    "unknown_spans": (lambda: spans(base(), "", slice(0, 5)), base),
    "strange_labels": (
        lambda: base().assign_coords(text=column("token", ["\u202eabc"] * 224)),
        lambda: base().assign_coords(text=column("token", [" naïve\n"] * 224)),
    ),
    "much_template": (lambda: spans(base(), "template", slice(0, 100)), base),
    "unequal_classes": (lambda: classes(base(), 4), lambda: classes(base(), 7)),
    "noise_looks_strong": (lambda: many_neurons(base(), 5000), lambda: many_neurons(base(prompts=60), 1)),
    "openers_of_several_tokens": (lambda: openers(base(), [4, 5]), lambda: openers(base(), [4])),
    "last_depth_is_normalised": (lambda: normalised(base()), base),
    "one_cell_owns_the_scale": (base, lambda: without_first(base())),
    "norms_grow_with_depth": (lambda: rising(base()), lambda: level(base())),
    "peaks_cover_little": (lambda: covering(base(), 0.1), lambda: covering(base(), 0.9)),
    "nothing_recorded": (lambda: scaled(base(), "attn_first", np.nan), base),
    "infinite_values": (lambda: scaled(base(), "mlp_out_norm", np.inf), base),
    "writes_are_flat": (lambda: flat(base()), base),
    "activations_without_writes": (lambda: base().drop_vars("peak_write"), base),
    "signs_are_lost": (lambda: imported("hello abc"), lambda: imported("hello abc", sign=-1.0)),
    "no_floor": (base, lambda: with_floor(base())),
    "not_recorded": (lambda: one_array(base(), names.SIMULATED), lambda: one_array(base(), names.REAL)),
    "weights_not_used": (lambda: noted("L25"), base),
    "prompt_not_as_written": (lambda: noted("L26"), base),
    "batches_matter": (lambda: noted("L27"), base),
    "experts_without_router": (lambda: with_experts(base()), lambda: routed(base())),
    "logits_of_other_tokens": (lambda: filled(model(tuned=False), "target_logit"), lambda: model(tuned=False)),
    "targets_of_their_own": (lambda: own_targets([1, 2, 2, 2]), lambda: own_targets([2, 2, 2, 2])),
    "direct_without_effects": (lambda: model(tuned=False).drop_vars(EFFECTS), lambda: model(tuned=False)),
    "effects_without_calibration": (lambda: model(tuned=False), lambda: calibrated(model(tuned=False))),
    "lens_shows_its_corpus": (lensed, lambda: lensed().isel(lens=[0, 1, 2, 2])),
    "other_final_norms": (
        lambda: model(tuned=False).drop_vars("final_scale"), lambda: filled(model(tuned=False), "final_scale")),
}  # fmt: skip


@pytest.mark.parametrize("name", [one.name for one in all_checks()])
def test_a_check_finds_what_it_is_for_and_leaves_the_rest_alone(name: str) -> None:
    (one,) = (one for one in all_checks() if one.name == name)
    found, alone = CASES[name]
    note = one.note(found())
    assert note is not None
    assert note.id == one.id
    assert note.text[-1] in ".?"
    assert one.note(alone()) is None


def test_every_line_is_checked_or_it_is_said_why_data_cannot_trigger_it() -> None:
    checked = {one.id for one in all_checks()}
    for number in range(1, 36):
        identity = f"L{number:02d}"
        section = re.search(rf'<a id="{identity.lower()}"></a>(.*?)(?=<a id="l|\Z)', PAGE, re.DOTALL)
        assert section, f"{identity} has no place in docs/pitfalls.md"
        assert ("`lint`" in section[1]) == (identity in checked), identity


def test_every_check_is_explained_where_it_says() -> None:
    for one in all_checks():
        assert f'<a id="{one.page.split("#")[1]}"></a>' in PAGE
        assert is_sentence(one.why)
        assert one.severity in ("info", "warning")


def test_positions_that_repeat_are_found_too() -> None:
    (one,) = (one for one in all_checks() if one.name == "grouped_by_text")
    assert one.note(imported("hi you", positions=[0, 1, 1, 2, 3, 4])) is not None


def test_a_template_around_some_prompts_only_is_found() -> None:
    (one,) = (one for one in all_checks() if one.name == "special_tokens")
    trace = base()
    some = (trace["position"].values == 2) & (trace["prompt"].values < 3)
    note = one.note(spans(trace, "template", some))
    assert note is not None
    assert "3 of 16" in note.text
    assert one.note(spans(trace, "template", trace["position"].values == 2)) is None


def test_a_lint_lists_warnings_first_and_keeps_the_notes_of_the_trace() -> None:
    result = lint(flat(base(prompts=4)))
    severities = result["findings/severity"].values.tolist()
    assert severities == sorted(severities, key=lambda one: one != "warning")
    assert {"writes_are_flat", "too_few_prompts"} <= set(result["findings/check"].values.tolist())
    assert result.attrs["kind"] == "lint"
    assert any(note["id"] == "L16" for note in lint(stratoscope.simulate(prompts=2)).attrs["notes"])


def test_a_picture_carries_the_warnings_of_what_it_draws_and_no_others() -> None:
    trace = flat(base(prompts=4))
    drawn = {note.id for note in heatmap_spec(trace, quantity="mlp_write_norm").notes if note.severity == "warning"}
    other = {note.id for note in heatmap_spec(trace, quantity="attn_entropy").notes if note.severity == "warning"}
    assert "L20" in drawn
    assert not other
    assert not applicable(base(), ["mlp_write_norm"])


def test_a_comparison_carries_the_warnings_of_comparisons() -> None:
    doubled_trace = doubled(base(prompts=16))
    notes = {(note["id"], note["severity"]) for note in contrast(doubled_trace, groups=False).attrs["notes"]}
    assert ("L17", "warning") in notes


def test_the_command_tells_and_ends_with_status_3_only_where_something_is_wrong(tmp_path: Path) -> None:
    stratoscope.simulate(tmp_path / "few.trace", prompts=4, tokens=12, layers=3, d_ff=32, heads=2)
    found = CliRunner().invoke(app, ["lint", str(tmp_path / "few.trace")])
    assert found.exit_code == 3
    assert "[L12] warning: " in found.output
    assert "docs/pitfalls.md#l12" in found.output
    as_json = json.loads(CliRunner().invoke(app, ["lint", str(tmp_path / "few.trace"), "--json"]).output)
    assert as_json["warnings"] == sum(one["severity"] == "warning" for one in as_json["found"])
    stratoscope.simulate(tmp_path / "norms.trace", prompts=24, tokens=12, layers=3, d_ff=32, record=("norms",))
    assert CliRunner().invoke(app, ["lint", str(tmp_path / "norms.trace")]).exit_code == 0


def test_a_note_of_the_recording_is_as_grave_in_a_lint_as_it_was(tmp_path: Path) -> None:
    for severity in ("info", "warning"):
        found = lint(noted("L26", severity))
        assert found["findings/severity"].values[found["findings/id"].values.tolist().index("L26")] == severity


def test_strict_ends_with_status_3_for_what_is_only_worth_knowing(tmp_path: Path) -> None:
    stratoscope.simulate(tmp_path / "t.trace", prompts=24, tokens=12, layers=3, d_ff=32, record=("norms",))
    assert CliRunner().invoke(app, ["lint", str(tmp_path / "t.trace")]).exit_code == 0
    found = CliRunner().invoke(app, ["lint", str(tmp_path / "t.trace"), "--strict"])
    assert (found.exit_code, "info" in found.output) == (3, True)


def test_a_lint_of_a_hardly_begun_trace_does_not_fail() -> None:
    trace = base(prompts=1, tokens=1, layers=1)
    assert lint(trace).attrs["summary"]["checks"] == len(all_checks())


def test_only_warnings_stand_in_a_warning() -> None:
    notes = [{"id": "L26", "severity": severity, "text": f"A {severity}."} for severity in ("info", "warning", "info")]
    found = lint(base().assign_attrs(notes=notes))
    (place,) = np.flatnonzero(found["findings/id"].values == "L26")
    assert found["findings/text"].values[place] == "A warning. (2 less serious: see `stratoscope info`.)"


def test_what_a_trace_calls_its_classes_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    trace = stratoscope.simulate(prompts=4, tokens=12, layers=3, d_ff=32, heads=2)
    evil = column("prompt", ["a\x1b]0;owned\x07\u202e", "b"] * 2)
    write_dataset(trace.assign_coords(prompt_class=evil), tmp_path / "t.trace")
    output = CliRunner().invoke(app, ["lint", str(tmp_path / "t.trace")]).output
    assert "prompts of a" in output
    assert all(character == "\n" or character.isprintable() for character in output)
