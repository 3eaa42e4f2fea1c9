"""The texts on which publishing is measured: docstrings of the pinned packages, chosen by their hashes.

    python tests/publish/truth/corpus.py FOLDER

writes `corpus.jsonl`, whose recording is published, and `reference.jsonl`, other texts of the same kind, which the
attackers have. Each holds two classes of 120 prompts, recorded as plain text, without a chat template. No two texts
of the 480 share a run of six words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
from docstrings import PACKAGES, digest, texts

CORPUS, REFERENCE = "corpus", "reference"
CLASSES = tuple(PACKAGES)
IN_A_CLASS = 120
SHORTEST, LONGEST = 200, 250  # characters: 48 tokens of such prose have about 220
RUN = 6  # words


def corpora() -> dict[str, list[dict[str, str]]]:
    """The prompts of both files: a class's texts go to the corpus and to the reference in turn."""
    found: dict[str, list[dict[str, str]]] = {CORPUS: [], REFERENCE: []}
    seen: set[tuple[str, ...]] = set()
    for name in CLASSES:
        chosen = _apart(texts(PACKAGES[name], shortest=SHORTEST, longest=LONGEST), seen)
        for use, rows in zip(found.values(), (chosen[0::2], chosen[1::2]), strict=True):
            use += [
                {"id": f"{name}-{number:03}", "class": name, "text": text}
                for number, text in enumerate(rows[:IN_A_CLASS], start=1)
            ]
    return found


def _apart(candidates: list[str], seen: set[tuple[str, ...]]) -> list[str]:
    """As many as two files need that share no run of words with each other or with what was `seen`, which grows."""
    kept: list[str] = []
    for text in candidates:
        words = text.lower().split()
        runs = {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}
        if not runs & seen:
            kept.append(text)
            seen |= runs
        if len(kept) == 2 * IN_A_CLASS:
            return kept
    raise AssertionError(f"only {len(kept)} texts are apart from each other")


def main(folder: Path) -> None:
    """Write the two files and say what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in corpora().items():
        content = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        print(f"{name}.jsonl: {len(prompts)} prompts, sha256 {digest(content)[:16]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
