"""The promise of ε: by OpenDP's accountant, and by an attack that publishes two neighbouring inputs very often."""

from __future__ import annotations

from measuring import Claim, Lab, Measured, Table, number

from stratoscope import defaults
from stratoscope.publish.private.lower_bound import epsilon_at_least
from stratoscope.publish.private.noise import calibrated

PROMPTS = (20, 100)
EPSILONS = (0.5, defaults.EPSILON, 2.0)
RUNS = 500_000


def epsilon(lab: Lab) -> Measured:
    """Hold the stated ε against both."""
    rows, below, above = [], [], []
    for stated in EPSILONS:
        for prompts in PROMPTS:
            lab.tell(f"epsilon: {stated}, {prompts} prompts")
            mechanism = calibrated(prompts, 1.0, stated, defaults.DELTA)
            attacked = epsilon_at_least(mechanism, runs=RUNS)
            above.append(mechanism.epsilon - stated)
            below.append(attacked.epsilon - stated)
            ratio, found = number(mechanism.sigma / mechanism.sensitivity), number(attacked.epsilon)
            rows.append([f"{stated:g}", str(prompts), f"{ratio} Δ", number(mechanism.epsilon, digits=4), found])
    return Measured(
        [
            Table(
                f"The noise (σ, in units of Δ, how far one prompt can move a mean), and ε at δ = {defaults.DELTA:g}: "
                f"as OpenDP's accountant says, and at least what an attack found that published either of two "
                f"neighbouring inputs {RUNS:,} times (95 %).",
                ["stated ε", "prompts", "σ", "accountant: at most", "attack: at least"],
                rows,
            )
        ],
        [
            Claim("OpenDP's accountant never says more than what is stated.", max(above) <= 0),
            Claim("The attack never finds more than what is stated.", max(below) < 0),
        ],
    )  # fmt: skip
