"""Every name that a trace can hold is stated in the table of fields, so that nothing goes out by being forgotten."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.fields import (
    FIELDS,
    OF_PRIVATE_MODEL,
    OF_WEIGHTS,
    attribute_names,
    conforms,
    listed,
)
from stratoscope.publish.private.centre import KNOWN
from stratoscope.publish.tokens.traces import told
from stratoscope.recorder.plan import CapturePlan
from stratoscope.trace.format import schema

FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "format.md"


def _unlisted(held: list[str]) -> list[str]:
    """Names of which nothing is stated, themselves or by the keys below them."""
    return [name for name in held if listed(name) is None and not any(one.startswith(f"{name}.") for one in FIELDS)]


def test_a_new_quantity_is_published_by_nobody_who_has_not_stated_its_level() -> None:
    assert _unlisted([*names.QUANTITIES]) == []


def test_a_new_coordinate_is_stated_too() -> None:
    tables = (schema.TOKEN_COORDS, schema.MAYBE_TOKEN_COORDS, schema.ROW_ARRAYS, schema.AXIS_COORDS, schema.TEXTS)
    held = [name for table in tables for name in table]
    assert _unlisted([*held, *(f"{name}_bytes" for name in schema.TEXTS), "column_0_end", "column_12"]) == []


def test_every_attribute_and_array_of_the_page_on_the_format_is_stated() -> None:
    page = FORMAT_PAGE.read_text("utf-8")
    attributes = page.partition("## Attributes of the root group")[2].partition("###")[0]
    coordinates = page.partition("## Dimensions and coordinates")[2].partition("## Streamed arrays")[0]
    held = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", attributes + coordinates, re.MULTILINE)))
    assert {"format", "digest", "planted", "published", "char_end", "depth"} <= {*held}  # the page is read as meant
    assert _unlisted(held) == []


def test_every_entry_of_a_plan_is_stated() -> None:
    assert _unlisted([f"plan.{field.name}" for field in fields(CapturePlan)]) == []


def test_every_name_of_a_simulated_trace_of_all_groups_is_stated() -> None:
    trace = stratoscope.simulate(prompts=2, layers=2, d_model=16, d_ff=32, heads=2, record=names.RECORD_GROUPS)
    assert _unlisted(told(trace)) == []


def test_every_name_of_an_import_is_stated(tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Remark\n0,The,5,17,0.5,seen by Ada\n")
    assert _unlisted(told(stratoscope.import_csv(file))) == []


def test_no_array_is_stated_that_the_format_does_not_have() -> None:
    made_by_the_reader = {"opener", "target", "lens", "column"}
    arrays = {name for name, field in FIELDS.items() if not field.form and "." not in name}
    attributes = {*attribute_names(dict.fromkeys((*schema.WRITTEN, "resumed", "merged", schema.PUBLISHED), ""))}
    others = arrays - attributes - made_by_the_reader - {*schema.TEXTS}
    assert [name for name in others if schema.known_layout(name) is None] == []


def test_the_table_and_the_class_means_say_the_same_of_what_is_averaged() -> None:
    averaged = {name for name, field in FIELDS.items() if names.AGGREGATE in field.levels}
    assert averaged & {*names.QUANTITIES} == {*PROFILED, "prompt_mean"}
    of_the_model = {name for name in averaged if name.startswith("model.")}
    assert averaged - {*names.QUANTITIES} - of_the_model == {"prompt_class", "source"}
    assert {*KNOWN} <= {name for name in averaged if names.PRIVATE in FIELDS[name].levels}


def test_a_later_level_never_keeps_what_an_earlier_one_drops() -> None:
    for name, field in FIELDS.items():
        assert field.levels == names.LEVELS[: len(field.levels)], name


def test_no_level_without_text_keeps_what_the_research_names_as_easily_forgotten() -> None:
    forgotten = ("plan.prompts_sha256", "uuid", "receipt.probe_prompts", "receipt.probe_tokens", "receipt.batch",
                 "created", "finished", "tokenizer.chat_template", "text", "char_start", "char_end", "span", "pair",
                 "group", "token_id", "prompt_id", "plan.targets.text", "plan.openers.text", "token_texts")  # fmt: skip
    assert [name for name in forgotten if names.NO_TEXT in FIELDS[name].levels] == []


@pytest.mark.parametrize(
    ("value", "form", "is_so"),
    [
        ("/home/ada", FIELDS["model.dtype"].form, False),
        ("ada@example.org", FIELDS["model.architecture"].form, False),
        ("bfloat16", FIELDS["model.dtype"].form, True),
        ("GGUF Q4_1, dequantised", FIELDS["model.quantisation"].form, True),
        ("GGUF of ada, dequantised", FIELDS["model.quantisation"].form, False),
        ("/models/secret", FIELDS["model.name"].form, False),
        ("HuggingFaceTB/SmolLM2-135M", FIELDS["model.name"].form, True),
        ("none: gcc of /home/ada failed", FIELDS["software.kernels"].form, False),
        ("Ada's machine", FIELDS["plan.top_k"].form, False),
        ([1, "Ada"], FIELDS["plan.tokens"].form, False),
        ({"neuron_norm": 0.5, "Ada": 1.0}, FIELDS["receipt.replays.largest_differences"].form, False),
        (True, FIELDS["plan.top_k"].form, False),
    ],
)
def test_a_value_of_another_form_than_stated_does_not_go_out(value: object, form: str, is_so: bool) -> None:
    assert conforms(value, form) is is_so


def test_what_gives_away_weights_is_something_that_a_trace_holds() -> None:
    assert [name for name in (*OF_WEIGHTS, *OF_PRIVATE_MODEL) if name not in FIELDS] == []


def test_a_floor_goes_with_its_quantity(simulated: xr.Dataset) -> None:
    assert listed("floor_batch_peak_write") is FIELDS["peak_write"]
    assert listed("floor_peak_write") is FIELDS["peak_write"]
    assert "peak_write" in simulated
