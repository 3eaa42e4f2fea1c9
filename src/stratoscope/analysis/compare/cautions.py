"""What a reader of a comparison must know, in sentences: how tokens were aligned, what must be equal, what is usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from stratoscope import names
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.words import agreeing, counted, number, percent

Facts: TypeAlias = "Mapping[str, Any]"
_MOST_RELATIVE = 0.5  # of the digits of the dtype: how far rounding may carry the same tokens apart
_UNKNOWN_ROUNDING = 2.0**-8  # where no dtype is known: the coarsest
_FEW_PAIRS = 3  # fewer have no typical one: each is named
_NO_TEST = "This describes two prompts and tests nothing"


def about(summary: Facts) -> list[Note]:
    """The notes of a comparison."""
    notes = [Note("L11", INFO, f"{alignment(summary)} {unmatched(summary)}".rstrip())]
    if said := before(summary):
        notes.append(Note("L27", WARNING if _is_too_far(summary) else INFO, said))
    return [*notes, Note("L12", INFO, f"{no_test(summary)} {yardstick(summary)}".rstrip())]


def no_test(summary: Facts, command: str = "contrast") -> str:
    """That nothing is tested here, and what tests; single files have no classes to test."""
    return f"{_NO_TEST}: `{command}` tests classes." if summary["has_classes"] else f"{_NO_TEST}."


def alignment(summary: Facts) -> str:
    """How many tokens both have, and which only one has."""
    (called_a, called_b), of = summary["called"], summary["columns"]
    parts = [
        f"{of['replaced']:,} replaced" if of["replaced"] else "",
        f"{of['only_a']:,} only in {called_a}" if of["only_a"] else "",
        f"{of['only_b']:,} only in {called_b}" if of["only_b"] else "",
    ]
    return ", ".join([f"{counted(of['equal'], 'equal token')} compared", *(part for part in parts if part)]) + "."


def unmatched(summary: Facts) -> str:
    """What is drawn hatched, and whose positions are written."""
    (called_a, _), of = summary["called"], summary["columns"]
    if of["equal"] == of["all"]:
        return ""
    return (
        "Hatched: tokens without an equal one on the other side; after the first of them, equal tokens stand in "
        f"another context. Positions are those of {called_a}."
    )


def before(summary: Facts) -> str:
    """Whether the tokens before the first edit are the same in both; "" where there is none to look at."""
    of = summary["before"]
    if not of["cells"]:
        return ""
    tokens = counted(of["tokens"], "token")
    which = f"All {tokens}" if of["all"] == summary["columns"]["all"] else f"The {tokens} before the first edit"
    if of["tokens"] < of["all"]:
        which += " with a value"
    if of["equal"]:
        must = ", as one model must make them" if of["must_be_equal"] else ""
        return f"{which} {agreeing(of['tokens'], 'is', 'are')} exactly equal in both{must}."
    apart = f"{which} {agreeing(of['tokens'], 'differs', 'differ')} by up to {number(of['largest'])} ({percent(of['relative'])} of the value)"  # fmt: skip  # noqa: E501
    if of["of_later_tokens"]:
        label = names.QUANTITIES[summary["quantity"]].label
        return f"{apart}: {label} rests on later tokens, which are not the same."
    if _is_too_far(summary):
        return f"{apart}, more than rounding makes in one model: the two were not recorded alike."
    if of["must_be_equal"]:
        return f"{apart}: rounding, since in another batch or with other padding the same sums are added otherwise."
    if summary["simulated"]:
        return f"{apart}: a simulation draws each prompt by itself."
    return f"{apart}: nothing says that both went through the same model in the same way."


def _is_too_far(summary: Facts) -> bool:
    of = summary["before"]
    if not of["must_be_equal"] or of["equal"] or not of["cells"]:
        return False
    return bool(of["relative"] > (of["rounding"] or _UNKNOWN_ROUNDING) ** _MOST_RELATIVE)


def yardstick(summary: Facts) -> str:
    """How many differences as strong as here other pairs of prompts show."""
    of, here = summary["others"], summary["difference"]
    if not here["cells"] and here["tokens"]:
        return "No value of the equal tokens behind the first edit can be compared: nothing is left."
    if not here["cells"]:
        return "No equal token stands behind the first edit: nothing is left to compare."
    if of is None:
        return "Nothing differs."
    if not of["of"]:
        where = "this trace" if summary["one_trace"] and summary["has_classes"] else "these files"
        return f"There is no other pair of prompts in {where} to say whether such differences are usual."
    if not of["measured"]:
        return "No other pair of prompts has equal tokens behind its first edit to say whether this is usual."
    sample = "" if of["measured"] == of["of"] else f" (a random {of['measured']} of {of['of']:,})"
    usual = f"Is it usual? {here['strong']:,} of {here['cells']:,} cells ({percent(of['share_here'])}) differ by "
    usual += f"{number(here['strong_from'])} or more here. "
    least, most = percent(of["share_least"]), percent(of["share_most"])
    if of["of"] < _FEW_PAIRS:
        return usual + _few_pairs(of["of"], of["measured"], of["relation"], least, most)
    return usual + (
        f"Of {of['measured']} {of['relation']}{sample} a typical one has {percent(of['share_typical'])} such cells "
        f"({least} to {most}), and "
        f"{of['with_as_many'] or 'none'} {agreeing(max(of['with_as_many'], 1), 'has', 'have')} as many or more."
    )


def _few_pairs(there: int, measured: int, relation: str, least: str, most: str) -> str:
    """The shares of one or two other pairs, which have no typical one."""
    if there == 1:
        one = relation.replace("pairs", "pair", 1).replace("prompts that both traces", "prompt that both traces")
        return f"The one {one} has {least} such cells."
    if measured == 1:
        return f"Of the two {relation} one can be compared, and has {least} such cells."
    return f"The two {relation} have {least} and {most} such cells."


def lists(summary: Facts) -> str:
    """How many neurons only one of the two lists, and what that does not mean."""
    (called_a, called_b), of = summary["called"], summary["lists"]
    where = f"among the {of['most']} recorded peaks" if of["most"] else "in the rows"
    if not of["only_a"] and not of["only_b"]:
        return f"The same neurons are {where} of both, at every equal token."
    return (
        f"Neurons {where} of one only, at the same token and layer: {of['only_a']:,} in {called_a}, "
        f"{of['only_b']:,} in {called_b}; a neuron that is not among them is not zero."
    )
