"""Where the prompts of a picture of peaks stand: side by side, one scene for each class, or all end to end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import Ints
from stratoscope.trace.prompts import Prompts
from stratoscope.view.spec.peaks import Scene
from stratoscope.words import visible

MOST_SCENES = 4  # each holds a graphics context of its own


class Scenes:
    """The chosen prompts: which scene each is drawn in, and what the reader can choose among.

    Attributes
    ----------
    scenes
        What is drawn side by side.
    scene, choice
        Scene and choice of each prompt, of shape (prompts,).
    choices, choice_label
        Classes, else prompts, that can be looked at alone, and which of the two they are.
    """

    def __init__(self, of: Prompts, prompts: list[int]) -> None:
        self._index = np.array(prompts)
        ids, classes = [of.labels[index] for index in prompts], [of.classes[index] for index in prompts]
        by_class = len(set(classes)) > 1
        self.choice_label = "Class" if by_class else "Prompt"
        self.choices, self.choice = _numbered([name or "no class" for name in classes] if by_class else ids)
        if len(prompts) <= MOST_SCENES:
            self.scene = np.arange(len(prompts))
            words = [
                (name or identity, identity if name and name != identity else "")
                for name, identity in zip(classes, ids, strict=True)
            ]
        elif by_class and len(self.choices) <= MOST_SCENES:
            self.scene = self.choice
            counts = np.bincount(self.choice).tolist()
            words = [(name, f"{count} prompts, end to end") for name, count in zip(self.choices, counts, strict=True)]
        else:
            self.scene = np.zeros(len(prompts), np.int64)
            words = [(f"{len(prompts)} prompts, end to end", "")]
        self.scenes = tuple(Scene(visible(title), visible(detail)) for title, detail in words)

    def row_of(self, prompt: NDArray[np.integer]) -> Ints:
        """Place among the chosen prompts of each index on the prompt axis."""
        order = np.argsort(self._index)
        return order[np.searchsorted(self._index[order], prompt)]


def places(scene: Ints) -> Ints:
    """Place of each token, in reading order, among those of its scene."""
    place = np.empty(len(scene), np.int64)
    for one in np.unique(scene):
        place[scene == one] = np.arange(np.count_nonzero(scene == one))
    return place


def text_ranks(texts: tuple[str, ...]) -> Ints:
    """Place of each token in the order of texts; of equal ones, the first comes first."""
    rank = np.empty(len(texts), np.int64)
    rank[sorted(range(len(texts)), key=lambda index: (texts[index].strip(" ▁Ġ").casefold(), texts[index], index))] = (
        np.arange(len(texts))
    )
    return rank


def _numbered(items: list[str]) -> tuple[list[str], Ints]:
    """Distinct items in order of appearance, and the number of each item among them."""
    distinct = list(dict.fromkeys(items))
    return distinct, np.array([distinct.index(item) for item in items])
