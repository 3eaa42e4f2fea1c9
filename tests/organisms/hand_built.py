"""Models whose weights are set by hand, so that it is known from where each head brings what; all else is small noise.

Their residual stream has a place for each of four things: which word a token is, where it stands, which word stood
before it, and which word is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

WORDS = ("<pad>", "<bos>", "?", "a", "b", "c", "d", "e", "f", "g", "h", "i")
QUESTION, TOPICS = WORDS.index("?"), range(WORDS.index("a"), WORDS.index("d"))
WIDTH = len(WORDS)  # of each place of the stream, and of a head
WORD, POSITION, BEFORE, ANSWER = (slice(place * WIDTH, (place + 1) * WIDTH) for place in range(4))
HEADS, LAYERS = 4, 2
PREVIOUS, INDUCTION, COPY = (0, 1), (1, 2), (1, 3)  # (layer, head) of what is planted
_NOISE = 0.02
_NORMED = (2 * WIDTH) ** 0.5  # what the norm makes of a 1 of the word or the position


@dataclass(frozen=True)
class Edge:
    """What a head brings to a token from another, in a prompt of a hand-built model."""

    token: int
    layer: int
    head: int
    source: int


def nothing() -> Any:
    """Noise alone."""
    return _blank()


def copy_head() -> Any:
    """At "?" a head of the last layer looks at a topic and answers with it."""
    model = _blank()
    asked, topic = torch.zeros(WIDTH, WIDTH), torch.zeros(WIDTH, WIDTH)
    asked[QUESTION, 0] = 1
    topic[list(TOPICS), 0] = 1
    _plant(model, COPY, (WORD, asked), (WORD, topic), ANSWER, match=6.0)
    return model


def previous_token_head() -> Any:
    """A head of the first layer looks at the token before, and writes which word it is."""
    model = _blank()
    _plant_previous(model)
    return model


def induction() -> Any:
    """Behind a word that stood before, the answer is what followed it then: a head of each layer."""
    model = _blank()
    _plant_previous(model, written=0.25)  # so little that norms, which it grows, do not hide what it does
    _plant(model, INDUCTION, (WORD, torch.eye(WIDTH)), (BEFORE, torch.eye(WIDTH)), ANSWER, match=9.0)
    return model


def tokenizer() -> Any:
    """One token a word; `<bos>` is put in front of a prompt."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>")


def _blank() -> Any:
    """Embeddings of words and positions, an unembedding of the answer, and noise in all heads and MLPs."""
    config = hf.GPT2Config(
        vocab_size=WIDTH, n_positions=WIDTH, n_embd=HEADS * WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=32,
        tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=QUESTION,
    )  # fmt: skip
    model = hf.GPT2LMHeadModel(config).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".ln_" in name or name.endswith("bias"):
                weights.fill_(float(name.endswith("weight")))
            else:
                weights.copy_(_NOISE * torch.randn(weights.shape, generator=random))
        for table, place in (("wte", WORD), ("wpe", POSITION)):
            weights = getattr(model.transformer, table).weight
            weights.zero_()
            weights[:, place] = torch.eye(WIDTH)
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, ANSWER] = torch.eye(WIDTH)
    return model


def _plant_previous(model: Any, written: float = 1.5) -> None:
    before = torch.diag(torch.ones(WIDTH - 1), -1)  # the query of a position is the key of the one before
    _plant(model, PREVIOUS, (POSITION, before), (POSITION, torch.eye(WIDTH)), BEFORE, match=9.0, written=written)


def _plant(
    model: Any,
    where: tuple[int, int],
    query: tuple[slice, Tensor],
    key: tuple[slice, Tensor],
    out: slice,
    *,
    match: float,
    written: float = 1.5,
) -> None:
    """Let a head write which word a token is that its query fits: such a token gets exp(match) times the attention."""
    layer, head = where
    attention = model.transformer.h[layer].attn
    width = HEADS * WIDTH
    mine = slice(head * WIDTH, (head + 1) * WIDTH)
    gain = (match * WIDTH**0.5) ** 0.5 / _NORMED
    with torch.no_grad():
        for number, (place, maps) in enumerate((query, key)):
            attention.c_attn.weight[place, number * width :][:, mine] = gain * maps
        attention.c_attn.weight[WORD, 2 * width :][:, mine] = torch.eye(WIDTH) / _NORMED
        attention.c_proj.weight[mine, out] = written * torch.eye(WIDTH)
