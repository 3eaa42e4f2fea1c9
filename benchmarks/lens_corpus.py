"""Text for fitting and for judging a lens: docstrings of the pinned packages, chosen by their hashes.

    python benchmarks/lens_corpus.py FOLDER

writes `science.jsonl` and `software.jsonl` (to fit), and `held-out.jsonl` (of both kinds, to judge). Whoever has the
pinned environment gets the same files. Of each docstring the paragraphs of plain prose are taken, as one line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from docstrings import PACKAGES, digest, texts

TO_FIT, HELD_OUT = slice(0, 5), slice(60, 90)  # of the prompts of each corpus, in the order of their hashes
SHORTEST, LONGEST = 360, 900  # characters: 64 tokens of English have about 300


def corpora() -> tuple[dict[str, list[str]], list[str]]:
    """What to fit, corpus by corpus, and what is held out."""
    fit, held_out = {}, []
    for name, packages in PACKAGES.items():
        chosen = texts(packages, shortest=SHORTEST, longest=LONGEST)
        fit[name] = chosen[TO_FIT]
        held_out += chosen[HELD_OUT]
    return fit, held_out


def main(folder: Path) -> None:
    """Write the three files and say what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    fit, held_out = corpora()
    for name, prompts in {**fit, "held-out": held_out}.items():
        lines = [json.dumps({"id": f"{name}-{number:02}", "text": text}) for number, text in enumerate(prompts)]
        content = "\n".join(lines) + "\n"
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        print(f"{name}.jsonl: {len(prompts)} prompts, sha256 {digest(content)[:16]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
