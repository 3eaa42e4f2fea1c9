"""Members and use: every level at every size, as two tables, what must hold of them, and the frontier of both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from frontier import Point, draw_frontier
from games import allowed_auc, allowed_found
from measured_members import ALL_LEVELS, SIZES, Outcome, Pool, alike, by_rows, levels, of_others, outcome
from measuring import FOLDER, Claim, Lab, Measured, Table, interval, number, share

from stratoscope import defaults
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.arrays import Floats

WITH_ROWS = "provenance, no-text"
BOUNDED = ("private", "private, public centre", "look-alike of private")
REFUSED = "refused"
LEAST_ALIKE = 0.9  # of a profile of 100 prompts


def members(lab: Lab) -> Measured:
    """Attack every level at every size, and hold it against its originals."""
    pool = Pool.read(lab.corpus, lab.reference)
    other = class_profiles(lab.reference)
    found: dict[str, dict[int, Outcome]] = {}
    for prompts in reversed(SIZES):  # the most prompts can be published at every level
        for level in levels(pool, other, prompts):
            lab.tell(f"members: {level.name}, {prompts} prompts of a class")
            found.setdefault(level.name, {})[prompts] = outcome(level, pool, prompts)
    rows = by_rows(pool)
    draw_frontier(
        [Point(WITH_ROWS, None, (1.0, 1.0, 1.0), rows.auc), *_points(found)],
        allowed_auc(defaults.EPSILON, defaults.DELTA),
        FOLDER / "frontier",
    )
    return Measured(
        [
            Table(
                "Who was in it: the area under the ROC curve (0.5 = a guess, 1 = always right), and the share of "
                "members that are found where 1 % of other prompts are taken for members.",
                ["level", *(f"n = {prompts}{what}" for what in ("", ", found") for prompts in SIZES)],
                [
                    [WITH_ROWS, *[number(*rows.auc)] * len(SIZES), *[share(*rows.found)] * len(SIZES)],
                    *(
                        [
                            name,
                            *(number(*of[n].members.auc) if n in of else REFUSED for n in SIZES),
                            *(share(*of[n].members.found) if n in of else REFUSED for n in SIZES),
                        ]
                        for name, of in found.items()
                    ),
                    ["what ε = 1 allows at most", *[number(allowed_auc(defaults.EPSILON, defaults.DELTA))] * len(SIZES),
                     *[share(allowed_found(defaults.EPSILON, defaults.DELTA), digits=1)] * len(SIZES)],
                ],
            ),
            Table(
                f"What it is good for: the correlation over layers of the published `{ALL_LEVELS}` with that of the "
                "original prompts: of the difference of two classes, and of the profile of a class (the lower of two).",
                ["level", *(f"{what}, n = {prompts}" for what in ("difference", "profile") for prompts in SIZES)],
                [
                    [WITH_ROWS, *["1.00"] * 2 * len(SIZES)],
                    *([name, *_use(of)] for name, of in found.items() if len(of[SIZES[-1]].differences)),
                    ["as many other prompts", *_use_of_others(pool)],
                    ["the public centre alone", *["none"] * len(SIZES), *_of_centre(pool, other)],
                ],
            ),
        ],
        _claims(found),
    )  # fmt: skip


def _use(of: Mapping[int, Outcome]) -> list[str]:
    return [
        _over_draws(getattr(of[n], which)) if n in of else REFUSED
        for which in ("differences", "profiles")
        for n in SIZES
    ]


def _over_draws(values: Floats) -> str:
    return number(float(values.mean()), *interval(values))


def _use_of_others(pool: Pool) -> list[str]:
    pairs = [of_others(pool, prompts) for prompts in SIZES]
    return [_over_draws(pair[which]) for which in (0, 1) for pair in pairs]


def _of_centre(pool: Pool, other: object) -> list[str]:
    centre = other[f"profiles/{ALL_LEVELS}"].to_dataset()["mean"].values.mean(axis=0)
    of_turns = [
        [
            min(alike(centre, pool.quantities[ALL_LEVELS][draw.members].mean(axis=0)) for draw in turn)
            for turn in pool.draws(prompts, 20)
        ]
        for prompts in SIZES
    ]
    return [_over_draws(np.array(values)) for values in of_turns]


def _points(found: Mapping[str, Mapping[int, Outcome]]) -> list[Point]:
    points = []
    for name, of in found.items():
        for prompts, one in sorted(of.items()):
            use = one.differences if len(one.differences) else np.ones(1)  # neurons go out beside the profiles
            points.append(Point(name, prompts, (float(use.mean()), *interval(use)), one.members.auc))
    return points


def _claims(found: Mapping[str, Mapping[int, Outcome]]) -> list[Claim]:
    bound = allowed_auc(defaults.EPSILON, defaults.DELTA)
    most = max(found[name][n].members.auc[2] for name in BOUNDED for n in found[name])
    alarms = allowed_found(defaults.EPSILON, defaults.DELTA)
    least = min(found[name][n].members.found[1] for name in BOUNDED for n in found[name])
    profile = found["aggregate"][SIZES[-1]].profiles.min()
    centred = found["private, public centre"][SIZES[-1]].profiles.min()
    unbounded = found["aggregate"][SIZES[0]].members.auc[1]
    return [
        Claim(
            f"At `private` and its look-alike the area is at most {number(most)} (upper 95 % bound of the worst), "
            f"where ε = 1 allows {number(bound)}.",
            most <= bound,
        ),
        Claim("There no share of members found is above what ε = 1 allows, by more than chance.", least <= alarms),
        Claim(
            f"At `aggregate` nothing bounds it: 20 prompts of a class give {number(unbounded)} at least, more than "
            "ε = 1 would allow.",
            unbounded > bound,
        ),
        Claim(
            f"Profiles of 100 prompts correlate with the originals by {number(profile)} or more at `aggregate`, and by "
            f"{number(centred)} or more at `private` around a public centre.",
            min(profile, centred) >= LEAST_ALIKE,
        ),
    ]
