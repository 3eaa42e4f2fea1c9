"""Lays the facts about a trace out as text: a headline, then sections of aligned names and values."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any

from stratoscope import names
from stratoscope.errors import printable_line
from stratoscope.trace.calibration import NOT_CALIBRATED, Calibration
from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.format.part import part_of, planned_prompts
from stratoscope.trace.info.lenses_and_routes import lens_lines, route_lines
from stratoscope.trace.notes import promise_of
from stratoscope.words import capital, noted, number, number_ranges, size_text

_WIDTH = 100
_NAME_WIDTH = 16
_LONGEST_NAME = 40
_LONG_LIST = 8
_FILES = 3  # named in the headline
_MANY_LINES = 200  # of notes, or of names and values: a stranger's trace may have more
_DEEP = 40  # values in a value that are told
_LONGEST_TOLD = 10_000  # characters of one of them
_RECEIPT = "Receipt: what was proved while recording"
_LISTED = 3  # differences of a replay
_FLOORS_SHOWN = ("resid_norm", "mlp_out_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos", "peak_share",
                 "attn_received_nosink", "attn_entropy_nosink")  # fmt: skip
_LONG_TEXT = 120
_LONGEST_PATTERN = 48
_APART = ("receipt_line", "calibration")  # facts of a receipt that stand elsewhere
_EFFECTS = "effects"  # the record group
_HASH = re.compile(r"[0-9a-f]{32,}")

Lines = list[str]


def facts_text(facts: Mapping[str, Any]) -> str:
    """The facts that `stratoscope.trace.info.facts.info` returns, as plain text."""
    sections = [
        ("What is in it", _contents(facts)),
        ("What was recorded of every token or prompt", _quantities(facts)),
        ("What the model answered", _outcome(facts["outcome"] or {})),
        ("Whose logits are explained", _explained(facts["explained"] or {})),
        ("What each depth reads as tokens", _lines(lens_lines(facts["lenses"]) if facts["lenses"] else ())),
        ("Along which edges of attention", _lines(route_lines(facts["routes"]) if facts["routes"] else ())),
        ("Where it comes from", _origin(facts)),
        (_RECEIPT, _receipt(facts["receipt"] or {})),
        ("How far its total effects can be believed", _calibration(facts)),
        ("Planted on purpose", _planted(facts["planted"] or [])),
        ("Notes", _notes(facts["notes"])),
    ]
    parts = [_headline(facts)]
    parts += ["\n".join([title, *lines]) for title, lines in sections if lines]
    return "\n\n".join(parts)


def receipt_section(facts: Mapping[str, Any]) -> str:
    """The section on the receipt alone, "" where there is none."""
    lines = _receipt(facts["receipt"] or {})
    return "\n".join([_RECEIPT, *lines]) if lines else ""


def _headline(facts: Mapping[str, Any]) -> str:
    name = PurePath(facts["path"]).name if facts["path"] else _files(facts["plan"]) or "(in memory)"
    kind = {"real": "recorded from a model", "simulated": "simulated", "imported": "imported from CSV"}
    parts = [printable_line(name), kind.get(facts["source"], "of unknown origin")]
    if part := part_of(facts["plan"]):
        parts.append(str(part))
    if facts["state"] == "recording":
        parts.append(f"NOT COMPLETE: {_so_far(facts)}; still recording, or interrupted (capture --resume goes on)")
    if facts["bytes"] is not None:
        parts.append(size_text(facts["bytes"]))
    return " · ".join(parts)


def _files(plan: Any) -> str:
    """The CSV files that were read, the first few of many."""
    files = objects_in(plan.get("files")) if isinstance(plan, Mapping) else []
    named = ", ".join(str(one.get("file")) for one in files[:_FILES])
    return f"{named}, … ({len(files)} files)" if len(files) > _FILES else named


def _so_far(facts: Mapping[str, Any]) -> str:
    planned = planned_prompts(facts["plan"])
    of = f" of {planned:,}" if planned is not None else ""
    return f"{facts['prompts']:,}{of} prompts so far"


def _contents(facts: Mapping[str, Any]) -> Lines:
    classes = ", ".join(f"{count} {printable_line(name)}" for name, count in facts["classes"].items())
    grouped = [f"{facts[key]:,} {key if facts[key] != 1 else key[:-1]}" for key in ("pairs", "groups") if facts[key]]
    prompts = "; ".join(part for part in (classes, *grouped) if part)
    layers = facts["layers"]
    lines = _line("prompts", f"{facts['prompts']:,}" + (f" ({prompts})" if prompts else ""))
    lines += _line("as written", "no: see L26 in the notes") if _altered(facts["notes"]) else []
    lines += _line("tokens", f"{facts['tokens']:,}")
    lines += _line("rows", f"{facts['rows']:,}") if facts["rows"] is not None else []
    lines += _line("layers", f"{len(layers)} ({number_ranges(layers)})" if layers else "none")
    for key in ("heads", "neurons", "top_k"):
        lines += _line(key.replace("_", "-"), f"{facts[key]:,}") if facts[key] else []
    return lines


def _altered(notes: list[dict[str, Any]]) -> bool:
    """Whether a model read something else than the user wrote (L26)."""
    return any(note["id"] == "L26" and note["severity"] == "warning" for note in notes)


def _quantities(facts: Mapping[str, Any]) -> Lines:
    lines = []
    for group, quantities in facts["quantities"].items():
        if group == names.FLOOR:  # three arrays for each quantity: the names of the quantities say it all
            floors = [quantity["name"] for quantity in quantities]
            lines += _line(group, f"{len(floors):,} arrays, floor_…; the receipt has the largest of each")
            continue
        by_dims: dict[str, list[str]] = {}
        for quantity in quantities:
            by_dims.setdefault(" × ".join(quantity["dims"]), []).append(quantity["name"])
        lines += _line(group, "; ".join(f"{', '.join(found)} ({dims})" for dims, found in by_dims.items()))
    return lines


def _outcome(outcome: Mapping[str, Any]) -> Lines:
    lines = []
    if "answered" in outcome:
        by = "; ".join(
            f"{count} with {_shortest(printable_line(pattern))!r}"
            for pattern, count in outcome["refusal_patterns"].items()
        )
        words = f"{outcome['open_as_refusal']:,} of {outcome['answered']:,} answers open as a refusal"
        lines += _line("refusals", words + (f" ({by})" if by else ""))
    if outcome.get("cut"):
        lines += _line(
            "cut short", f"{outcome['cut']:,} of {outcome['answered']:,} answers, as long as --generate allows"
        )
    if outcome.get("openers"):
        odds = (
            f"{printable_line(text)!r} " + ("not finite" if value is None else number(value))
            for text, value in outcome["openers"].items()
        )
        lines += _line("openers", f"{', '.join(odds)} (log-odds in nats, median of the prompts)")
    for one in outcome.get("answers", []):
        lines += _line(one["prompt"], _short(one["answer"]))
    return lines


_RECORDED = {
    "logits": "direct contributions: blocks and heads at every token, of which only the answer position predicts; "
    "neurons {neurons}",
    "effects": "total effects on the logit at the answer position, to first order: of neurons, heads and blocks at "
    "every token",
}


def _explained(explained: Mapping[str, Any]) -> Lines:
    lines = []
    for target in explained.get("targets", []):
        lines += _line("target", target)
    for prompt, target in explained.get("own", {}).items():
        lines += _line(prompt, target or "not known")
    if not lines:
        return lines
    prefix = explained["answer_prefix"]
    where = f"after the answer has begun with {prefix!r}" if prefix else "the last token before the answer"
    lines += _line("answer position", where)
    neurons = "at every token" if explained["positions"] == names.ALL_POSITIONS else "at the answer position"
    for group in explained["groups"]:
        lines += _line(group, _RECORDED[group].format(neurons=neurons))
    if explained["error"] is not None:
        limit = "" if explained["limit"] is None else f", allowed are {explained['limit']:.0e}"
        off = f"{explained['error']:.1e} of Σ|c|{limit}"
        lines += _line("sums", f"contributions miss the model's own logit by at most {off}")
    return lines


def _lines(lines: Iterable[tuple[str, str]]) -> Lines:
    return [part for title, words in lines for part in _line(title, words)]


def _origin(facts: Mapping[str, Any]) -> Lines:
    promise = promise_of(facts)
    lines = _line("published", promise.removeprefix("Published ")) if promise else []
    for key in ("model", "tokenizer", "plan", "software"):
        lines += _mapping({key: facts[key]}) if facts[key] else []
    if facts["axis"]:
        lines += _line("Neuron_ID is", {"unknown": "of an unknown axis"}.get(facts["axis"], f"a {facts['axis']} index"))
    lines += _line("created", facts["created"]) if facts["created"] else []
    resumed = ", ".join(entry["at"] for entry in facts["resumed"] or [])
    lines += _line("resumed", resumed) if resumed else []
    lines += _line("finished", facts["finished"]) if facts["finished"] else []
    lines += _line("merged", f"from {len(facts['merged'])} parts") if facts["merged"] else []
    return lines


def _receipt(receipt: Mapping[str, Any]) -> Lines:
    """Its line, then its facts one by one; sentences, replays and a noise floor have lines of their own."""
    own: dict[str, Callable[[Any], Lines]]
    own = {"limits": _sentences, "checks": _sentences, "replays": _replays, "batching": _batching}
    own["noise_floor"] = _noise_floor
    lines = _wrapped(str(receipt["receipt_line"]), "  ") if "receipt_line" in receipt else []
    lines += _mapping({name: value for name, value in receipt.items() if name not in {*own, *_APART}})
    for name, in_words in own.items():
        try:
            parts = in_words(receipt[name]) if name in receipt else []
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError):  # a stranger's trace may hold anything
            parts = [_value(receipt[name])]
        if parts:
            shown = _first(parts, _MANY_LINES)
            lines += [f"  {name.replace('_', ' ')}", *(line for part in shown for line in _wrapped(part, "  - "))]
            lines += _left_out(len(parts) - len(shown))
    return lines


def _sentences(sentences: list[str]) -> Lines:
    return list(map(str, sentences)) or ["none"]


def _replays(replays: list[dict[str, Any]]) -> Lines:
    return [_replay(**replay) for replay in replays]


def _replay(
    *,
    replay: str,
    tolerance: float,
    median: bool,
    tokens: int,
    largest_differences: Mapping[str, float],
    prompts: Sequence[str] = (),  # a published trace does not name them
    attention: Sequence[str] = (),  # before 2.0 `replay` told which, and not always rightly
) -> str:
    which = f"prompts {', '.join(prompts)}" if prompts else "prompts that are not named"
    which = f"{len(prompts):,} prompts" if len(prompts) > _LONG_LIST else which
    replay += f", {' and '.join(attention)} attention" if attention else ""
    if not largest_differences:
        return f"{replay}: nothing compared"
    worst = ", ".join(f"{name} {value:.1e}" for name, value in list(largest_differences.items())[:_LISTED])
    of = " of the median token" if median else ""
    return (
        f"{replay}: {which} ({tokens:,} tokens); largest difference{of} {worst}, … of "
        f"{len(largest_differences)} quantities; tolerance {tolerance:.1e}"
    )


def _batching(batching: Mapping[str, Any]) -> Lines:
    together = {"none": "each prompt ran alone"}.get(
        batching["together"], f"prompts ran beside others of {batching['together']}"
    )
    lines = [f"{capital(together)}."]
    tokens, others = batching["prompt_tokens"], batching["neighbour_tokens"]
    within = batching.get("rounding_at_most") or 0.0
    for key, beside in (
        ("beside_longer", f"beside one of {others}"),
        ("beside_equal_length", "beside an equally long one"),
    ):
        if key in batching:
            found = batching[key]
            times = f"at most {number(found or 0.0)} times what a last bit does (up to {number(within)} is rounding)"
            change = "the model refused it" if found is None else f"what a block writes changes by {times}"
            lines.append(f"A prompt of {tokens} tokens {beside}: {change}.")
    if batching.get("settings"):
        lines.append(f"What is written would depend on padding with {', '.join(batching['settings'])}.")
    return [*lines, *([f"Found by a replay: {batching['found_by']}."] if batching.get("found_by") else [])]


def _noise_floor(floor: Mapping[str, Any]) -> Lines:
    lines = [f"measured on prompts {', '.join(floor['prompts'])} ({floor['tokens']:,} tokens), stored as floor_*"]
    for nuisance, changes in floor["largest_changes"].items():
        shown = ", ".join(f"{name} {number(size)}" for name in _FLOORS_SHOWN if (size := changes.get(name)) is not None)
        lines.append(f"{nuisance}: {shown or 'nothing to compare'}")
    return lines


def _calibration(facts: Mapping[str, Any]) -> Lines:
    """How well first-order effects agree with ablations, as a table; nothing where no effects were recorded."""
    receipt = facts["receipt"] or {}
    if "calibration" not in receipt and _EFFECTS not in facts["quantities"]:
        return []
    found = Calibration.from_receipt(receipt)
    if not found.agreements:
        return _line("", f"{capital(NOT_CALIBRATED)}: nothing was ablated.")
    rows = _first(found.rows(), _MANY_LINES)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*_wrapped(found.explained, "  "), *map(printable_line, table)]


def _planted(planted: list[Any]) -> Lines:
    shown = _first(planted, _MANY_LINES)
    return [*(line for item in shown for line in _wrapped(_value(item), "  - ")), *_left_out(len(planted) - len(shown))]


def _notes(notes: list[dict[str, Any]]) -> Lines:
    shown = _first(notes, _MANY_LINES)
    lines = (noted(note["id"][:_LONGEST_NAME], f"{note['severity'][:_LONGEST_NAME]}: {note['text']}") for note in shown)
    return [*(part for line in lines for part in _wrapped(line, "  - ")), *_left_out(len(notes) - len(shown))]


def _mapping(mapping: Any) -> Lines:
    if not isinstance(mapping, dict):
        return _line("", _value(mapping))
    shown = {name[: _LONGEST_NAME + 1]: mapping[name] for name in _first(list(mapping), _MANY_LINES)}
    width = max([_NAME_WIDTH, *(len(printable_line(name)) for name in shown)])
    lines = [line for name, value in shown.items() for line in _line(name.replace("_", " "), _value(value), width)]
    return [*lines, *_left_out(len(mapping) - len(shown))]


def _first(items: list[Any], most: int) -> list[Any]:
    return items if len(items) <= most else items[:most]


def _left_out(count: int) -> Lines:
    return [f"  … and {count:,} more (`info --json` has them)"] if count > 0 else []


def _value(value: Any) -> str:
    match value:
        case None | "":
            return "not known"
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value, 4)
        case dict():
            shown = (
                f"{name[:_LONGEST_NAME].replace('_', ' ')}: {_value(value[name])}" for name in islice(value, _DEEP)
            )
            return "; ".join(shown) + (f"; … ({len(value):,} in all)" if len(value) > _DEEP else "")
        case list() if any(isinstance(item, dict | list) for item in value[:_DEEP]):
            return " | ".join(map(_value, value[:_DEEP])) + (f" | … ({len(value):,} in all)" if value[_DEEP:] else "")
        case list() if len(value) > _LONG_LIST:
            return ", ".join(map(_value, value[:_LONG_LIST])) + f", … ({len(value)} in all)"
        case list():
            return ", ".join(map(_value, value)) or "none"
        case str():
            return _short(value)
    return str(value)


def _short(text: str) -> str:
    """A text without the middle of a hash or of a template; `info --json` has it whole."""
    if _HASH.fullmatch(text):
        return text[:12] + "…"
    return text if len(text) <= _LONG_TEXT else f"{text[: _LONG_TEXT - 20]}… ({len(text):,} characters)"


def _shortest(pattern: str) -> str:
    return pattern if len(pattern) <= _LONGEST_PATTERN else pattern[:_LONGEST_PATTERN] + "…"


def _line(name: str, value: str, width: int = _NAME_WIDTH) -> Lines:
    """A name and its value; long values are wrapped under themselves."""
    return _wrapped(value, f"  {printable_line(name)[:_LONGEST_NAME]:<{min(width, _LONGEST_NAME)}}  ")


def _wrapped(text: str, first: str) -> Lines:
    indent = " " * len(first)
    if len(text) > _LONGEST_TOLD:
        text = f"{text[:_LONGEST_TOLD]}… ({len(text):,} characters: `info --json` has all)"
    return textwrap.wrap(printable_line(text), _WIDTH, initial_indent=first, subsequent_indent=indent) or [
        first.rstrip()
    ]
