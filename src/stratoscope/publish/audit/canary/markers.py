"""Canaries: markers put into a copy of the original before it is published, which must not be in what comes out."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.publish.audit.search.needles import (
    LINKS,
    MACHINE,
    PAIRS,
    PLACES,
    PROMPTS,
    TEMPLATE,
    WORDS,
    Needles,
)
from stratoscope.trace.format.attributes import object_in
from stratoscope.trace.labels import object_array

if TYPE_CHECKING:
    import xarray as xr

EMAILS, KEYS, GIVEN = "e-mail addresses", "keys and passwords", "names that people gave"
OF_A_KIND = 10
_SYLLABLES = [a + b for a in "bcdfgklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True)
class Canaries:
    """Markers of ten kinds, ten of each, which stand nowhere else.

    Attributes
    ----------
    of_kind
        The markers of each kind, as of `needles`.
    """

    of_kind: Mapping[str, Sequence[str]]

    @classmethod
    def drawn(cls, seed: int) -> Canaries:
        """Ten of each kind, the same for the same seed."""
        draw = random.Random(seed)

        def word(syllables: int = 5) -> str:
            return "".join(draw.choice(_SYLLABLES) for _ in range(syllables))

        def key() -> str:
            return "sk-" + "".join(draw.choice(string.ascii_letters + string.digits) for _ in range(32))

        made: dict[str, Callable[[], str]] = {
            WORDS: word,
            PROMPTS: lambda: f"{word()}-{draw.randrange(100)}",
            PAIRS: word,
            PLACES: lambda: f"/home/{word(3)}/{word()}/model",
            MACHINE: lambda: f"{word()}.{word(3)}.lan",
            EMAILS: lambda: f"{word(3)}@{word()}.org",
            KEYS: key,
            LINKS: lambda: str(uuid.UUID(int=draw.getrandbits(128))),
            TEMPLATE: word,
            GIVEN: word,
        }
        return cls({kind: [make() for _ in range(OF_A_KIND)] for kind, make in made.items()})

    @property
    def all(self) -> list[str]:
        """Every marker."""
        return [one for some in self.of_kind.values() for one in some]

    @property
    def needles(self) -> Needles:
        """What to search for."""
        needles = Needles()
        for kind, some in self.of_kind.items():
            for one in some:
                needles.words[one.encode()] = kind
                needles.sought[kind] += 1
                for codec in ("utf-8", "utf-16-le", "utf-16-be"):
                    needles.exactly(kind, one.encode(codec), one)
        return needles

    def planted(self, dataset: xr.Dataset) -> xr.Dataset:
        """A copy of a trace with every marker in it: in its texts, its ids and its attributes."""
        columns = {
            "text": self._in(dataset, "text", [f" {one}" for one in self.of_kind[WORDS]], _said(dataset)),
            "prompt_id": self._in(dataset, "prompt_id", self.of_kind[PROMPTS]),
            "pair": self._in(dataset, "pair", self.of_kind[PAIRS][: OF_A_KIND // 2]),
            "group": self._in(dataset, "group", self.of_kind[PAIRS][OF_A_KIND // 2 :]),
        }
        return dataset.assign_coords(
            {name: found for name, found in columns.items() if found is not None}
        ).assign_attrs(self._attributes(dataset.attrs))

    def _in(
        self, dataset: xr.Dataset, name: str, markers: Sequence[str], places: Sequence[int] = ()
    ) -> xr.Variable | None:
        """A column of texts with markers at some places, all of them if there are as many."""
        import xarray as xr

        if name not in dataset.variables:
            return None
        texts = [str(one) for one in dataset[name].values]
        chosen = list(places) or range(len(texts))
        step = max(1, len(chosen) // len(markers))
        for place, marker in zip(chosen[::step], markers, strict=False):
            texts[place] = marker
        return xr.Variable(dataset[name].dims, object_array(texts), fastpath=True)

    def _attributes(self, attrs: Mapping[Any, Any]) -> dict[str, Any]:
        """Attributes with markers under keys that a trace has, and under some that nobody listed."""
        paths, given, links = (self.of_kind[kind] for kind in (PLACES, GIVEN, LINKS))
        machines, emails, keys = (self.of_kind[kind] for kind in (MACHINE, EMAILS, KEYS))
        model, tokenizer, plan, receipt = (
            object_in(attrs.get(name)) for name in ("model", "tokenizer", "plan", "receipt")
        )
        note = {"id": "L01", "severity": "info", "text": f"For {emails[0]}: {given[0]} on {machines[0]}, {keys[0]}"}
        template = "".join(f"{{{{ '{one}' }}}}\n" for one in self.of_kind[TEMPLATE])
        return {
            "model": {**model, "name": paths[0], "revision": given[1], "device": machines[1], "file": paths[1]},
            "tokenizer": {**tokenizer, "chat_template": template, "owner": emails[1]},
            "plan": {
                **plan,
                "mean_of": links[0],
                "files": [{"file": one} for one in paths[2:]],
                "answer_prefix": given[2],
                "run_by": machines[2:],
                "token": keys[1:5],
            },
            "receipt": {**receipt, "probe_prompts": given[3:8], "limits": emails[2:6]},
            "notes": [*attrs.get("notes", []), note],
            "operator": {"mail": emails[6:], "keys": keys[5:], "runs": links[1:], "called": given[8:]},
            # of what a small trace has too few places for
            "remarks": [*self.of_kind[WORDS], *self.of_kind[PROMPTS], *self.of_kind[PAIRS]],
        }


def _said(dataset: xr.Dataset) -> Sequence[int]:
    """Tokens of what people wrote: all, where it is not known."""
    spans = dataset["span"].values
    found: list[int] = np.flatnonzero(spans == names.SPANS.index("user")).tolist()
    return found
