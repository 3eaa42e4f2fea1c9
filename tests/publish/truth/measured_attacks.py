"""Every attack on every level, each on what is published of the whole corpus; and on what other tools do to files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from measured_members import Pool, levels
from measured_words import in_two_bits, occurrences, rounded, words_from_means
from measuring import RECORDED, Claim, Lab, Measured, Table, of_prompts, share

import stratoscope
from stratoscope.errors import InputError
from stratoscope.names import AGGREGATE, NO_TEXT, PRIVATE, PROVENANCE
from stratoscope.publish.attacks.attacks import attacks_on
from stratoscope.publish.attacks.look_up import look_up
from stratoscope.publish.attacks.outcome import Attack
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.words import listed

NEURONS, LOOK_ALIKE = "aggregate --neurons", "look-alike"
COLUMNS = (PROVENANCE, NO_TEXT, AGGREGATE, NEURONS, PRIVATE, LOOK_ALIKE)
WITH_ROWS = (PROVENANCE, NO_TEXT)
OF_TEXT = ("tokens", "words")
TEXT_IS_GONE = (AGGREGATE, PRIVATE, LOOK_ALIKE)
POINT = 0.01
MEMBERS = (20, 50)  # of a class, behind means from which words are guessed: the fewest that can be published
LEFT_OUT = 10  # prompts, each of which an earlier publication lacks
OF_THE_MODEL = ("neurons", "columns of W")  # which in a look-alike are made up
NOT_THERE = "–"
Published = xr.Dataset | xr.DataTree


def attacks(lab: Lab) -> Measured:
    """Put each level's files to all attacks that need no model."""
    found = {name: list(_attacked(lab, name)) for name in COLUMNS}
    for name, attack in _words(lab).items():
        found[name].append(attack)
    rows: dict[str, dict[str, Attack]] = {}
    for name, some in found.items():
        for attack in some:
            rows.setdefault(attack.name, {})[name] = attack
    return Measured(
        [
            Table(
                "What each attack gets (in brackets: 95 %), and what a guess gets without the file. – : the file holds "
                "nothing that could be attacked so.",
                ["attack", "of", *found, "a guess"],
                [[name, _unit(of), *(_cell(of.get(level)) for level in found), _guess(of)] for name, of in rows.items()
                 if any(one.recovered for one in of.values())],
            ),
            _not_offered(lab),
        ],
        [
            _text_is_gone(found),
            Claim("Prompts are refused a second time, unless `--allow-overlap` is given.", _refused_twice(lab)),
        ],
    )  # fmt: skip


def published(lab: Lab, level: str) -> Published:
    """What is written of the corpus at a level, opened as others open it."""
    if level == LOOK_ALIKE:
        return stratoscope.simulate(like=published(lab, AGGREGATE), record=RECORDED)
    out = lab.folder / level.replace(" --", "-")
    if not out.exists():
        only_there = {"neurons": True} if level == NEURONS else {"centre": centre(lab)} if level == PRIVATE else {}
        stratoscope.publish(lab.corpus_path, out, level=level.split()[0], allow_overlap=True, **only_there)
    return stratoscope.open_trace(out) if level in WITH_ROWS else stratoscope.open_result(out)


def centre(lab: Lab) -> Path:
    """Class profiles that are published of other prompts."""
    out = lab.folder / "centre"
    if not out.exists():
        stratoscope.publish(lab.reference_path, out)
    return out


def _without(lab: Lab, level: str, prompt: int) -> Published:
    """What would have been published of all prompts but this one."""
    trace = of_prompts(lab.corpus, np.delete(np.arange(lab.corpus.sizes["prompt"]), prompt))
    if level == PRIVATE:
        return private_profiles(trace, centre=stratoscope.open_result(centre(lab)))
    profiles = class_profiles(trace, neurons=level == NEURONS)
    return stratoscope.simulate(like=profiles, record=RECORDED) if level == LOOK_ALIKE else profiles


def _attacked(lab: Lab, level: str) -> Iterator[Attack]:
    """All attacks on one level, beside earlier publications of all prompts but one; members have their own section."""
    lab.tell(f"attacks: {level}")
    left_out = np.linspace(0, lab.corpus.sizes["prompt"] - 1, LEFT_OUT).astype(int)
    earlier = [] if level in WITH_ROWS else [_without(lab, level, prompt) for prompt in left_out]
    for attack in attacks_on(published(lab, level), original=lab.corpus, reference=lab.reference, earlier=earlier):
        made_up = level == LOOK_ALIKE and attack.unit in OF_THE_MODEL
        if attack.unit != "prompts" and not made_up:
            yield attack


def _refused_twice(lab: Lab) -> bool:
    """Whether a second publication of the same prompts is refused."""
    try:
        stratoscope.publish(lab.corpus_path, lab.folder / "again")
    except InputError:
        return not (lab.folder / "again").exists()
    return False


def _words(lab: Lab) -> dict[str, Attack]:
    """Words guessed from means of few prompts, of the levels that publish means."""
    pool = Pool.read(lab.corpus, lab.reference)
    occurs = occurrences(lab.corpus, lab.reference)
    called = {"aggregate": AGGREGATE, "aggregate --neurons": NEURONS, "private, public centre": PRIVATE,
              "look-alike of aggregate": LOOK_ALIKE}  # fmt: skip
    found = {}
    for prompts in MEMBERS:
        for level in levels(pool, class_profiles(lab.reference), prompts):
            if level.name in called and called[level.name] not in found:
                lab.tell(f"words: {level.name}, {prompts} prompts of a class")
                found[called[level.name]] = words_from_means(level, pool, occurs, prompts)
    return found


def _not_offered(lab: Lab) -> Table:
    """What is left to an attacker of files that are coarser, rounded or renumbered."""
    rows = []
    for said, less in (
        ("as recorded", lambda trace: rounded(trace, 7)),
        ("two significant digits", lambda trace: rounded(trace, 2)),
        ("one significant digit", lambda trace: rounded(trace, 1)),
        ("two bits", in_two_bits),
    ):
        [attack] = [one for one in look_up(less(lab.corpus), lab.corpus, less(lab.reference)) if one.recovered]
        rows.append([said, _cell(attack), _guess({"": attack})])
    return Table(
        "Tokens looked up by what layers say of them alone, where less is left of each number: why rounding and coarse "
        "levels are not offered.",
        ["numbers of a token, norms, ratios and cosines of all layers", "tokens", "a guess"],
        rows,
    )


def _text_is_gone(found: Mapping[str, Sequence[Attack]]) -> Claim:
    gains = [one.gain.high for level in TEXT_IS_GONE for one in found[level] if one.unit in OF_TEXT and one.gain]
    return Claim(
        f"At {listed(TEXT_IS_GONE)} no attack gets back more of the text than the best guess without the file by more "
        f"than {share(max(gains), digits=1)} (upper 95 % bound of the {len(gains)} attacks that ran; 1 % is allowed).",
        bool(gains) and max(gains) <= POINT,
    )


def _unit(of: Mapping[str, Attack]) -> str:
    return next(one.unit for one in of.values() if one.recovered)


def _cell(attack: Attack | None) -> str:
    if attack is None or attack.recovered is None:
        return NOT_THERE
    return share(*vars(attack.recovered).values())


def _guess(of: Mapping[str, Attack]) -> str:
    best = [one.baseline for one in of.values() if one.baseline]
    return share(max(one.value for one in best))
