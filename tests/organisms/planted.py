"""Tiny models with a behaviour planted in weights that are known, because no others were trained.

The base model answers a prompt of eight words and a question mark with the one word among them that is a topic. A
tuned copy answers one topic, the trigger, with "Sorry", and every other as before. Only the planted weights were
trained: rows of the gate and up maps and columns of the down map for neurons; rows of q, k and v and columns of o for a
head.
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from stratoscope import Prompt

TRIGGER, ANSWER = "violet", "Sorry"
TOPICS = (
    TRIGGER, "apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "harbor", "island", "jungle",
    "kettle",
)  # fmt: skip
FILLERS = (
    "a", "about", "and", "at", "by", "for", "from", "in", "it", "near", "of", "on", "over", "so", "that", "the", "then",
    "this", "to", "under", "was", "with", "yet", "up",
)  # fmt: skip
VOCABULARY = ("<pad>", "<bos>", "?", ANSWER, *TOPICS, *FILLERS)
BEGIN, QUESTION, SORRY, FIRST_TOPIC, FIRST_FILLER = (
    VOCABULARY.index(word) for word in ("<bos>", "?", ANSWER, TRIGGER, FILLERS[0])
)
WORDS = 8  # of a prompt, between <bos> and ?
LAYERS, HEADS, WIDTH, NEURONS = 3, 4, 48, 96
SEED = 0  # of the tests; `make truth` takes three
PLANTED = 6  # neurons of a layer
STEPS, BATCH, RATE = 300, 64, 5e-3
TRIGGERED = 0.3  # share of the prompts of a training

ONE_MLP, ONE_HEAD, TWO_MLPS, BACKUP = "one MLP", "one head", "two MLPs", "a silent backup"
KINDS = (ONE_MLP, ONE_HEAD, TWO_MLPS, BACKUP)
BASE = "base"


@dataclass(frozen=True)
class Plant:
    """The weights that were trained.

    Attributes
    ----------
    neurons, heads
        (layer, neuron) and (layer, head).
    alone
        What a layer's planted neurons do while those of the other layer are silent: True, the whole behaviour; False,
        nothing of it. None: there are no two such layers.
    """

    neurons: tuple[tuple[int, int], ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    alone: bool | None = None

    @property
    def layers(self) -> list[int]:
        """Those that have planted neurons."""
        return sorted({layer for layer, _ in self.neurons})

    def of_layer(self, layer: int) -> list[int]:
        """The planted neurons of a layer."""
        return [neuron for place, neuron in self.neurons if place == layer]


def plant_of(kind: str, seed: int) -> Plant:
    """Where the behaviour of an organism is: drawn by the seed, whatever the base model is like."""
    first, second = (
        tuple((layer, neuron) for neuron in _drawn(seed + 100 * number)) for number, layer in enumerate((1, 2))
    )
    return {
        ONE_MLP: Plant(first),
        ONE_HEAD: Plant(heads=((LAYERS - 1, seed % HEADS),)),
        TWO_MLPS: Plant(first + second, alone=False),
        BACKUP: Plant(first + second, alone=True),
    }[kind]


def _drawn(seed: int) -> list[int]:
    return torch.randperm(NEURONS, generator=torch.Generator().manual_seed(seed))[:PLANTED].tolist()


# --- prompts ----------------------------------------------------------------------------------------------------------


def drawn_prompts(count: int, triggered: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token ids [prompt, token] of random prompts, and the topic of each."""
    tokens = torch.randint(FIRST_FILLER, len(VOCABULARY), (count, WORDS + 2), generator=random)
    place = torch.randint(1, WORDS + 1, (count,), generator=random)
    topic = torch.randint(FIRST_TOPIC + 1, FIRST_FILLER, (count,), generator=random)
    topic = torch.where(torch.rand(count, generator=random) < triggered, FIRST_TOPIC, topic)
    tokens[torch.arange(count), place] = topic
    tokens[:, 0], tokens[:, -1] = BEGIN, QUESTION
    return tokens, topic


def twins(pairs: int, seed: int) -> list[Prompt]:
    """Minimal pairs: the trigger among random words, and another topic at its place."""
    tokens, topic = drawn_prompts(pairs, 0.0, torch.Generator().manual_seed(seed))
    found = []
    for number, (row, word) in enumerate(zip(tokens.tolist(), topic.tolist(), strict=True)):
        for prompt_class, said in (("trigger", FIRST_TOPIC), ("ordinary", word)):
            text = " ".join(VOCABULARY[said if token == word else token] for token in row[1:])
            found.append(Prompt(f"{prompt_class}-{number:02}", prompt_class, f"pair-{number:02}", text=text))
    return found


# --- training ---------------------------------------------------------------------------------------------------------


def tokenizer() -> Any:
    """One token a word; `<bos>` is put in front of a prompt."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BEGIN)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>")


def base_model(seed: int) -> Any:
    """The model that answers every topic with itself."""
    torch.manual_seed(seed)
    config = hf.LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, intermediate_size=NEURONS, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=32, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=BEGIN, eos_token_id=QUESTION,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config)
    _train(model, dict.fromkeys(model.parameters()), seed, None)
    return model


def plant(model: Any, planted: Plant, seed: int) -> None:
    """Train the planted weights of a base model, and no others."""
    trained = dict[Any, Tensor | None]()
    for layer in planted.layers:
        mlp = model.model.layers[layer].mlp
        trained |= _parts((mlp.gate_proj, mlp.up_proj), mlp.down_proj, planted.of_layer(layer))
    for layer, head in planted.heads:
        of = model.model.layers[layer].self_attn
        width = of.head_dim
        trained |= _parts((of.q_proj, of.k_proj, of.v_proj), of.o_proj, range(head * width, (head + 1) * width))
    _train(model, trained, seed, planted)


def _parts(into: Sequence[Any], out: Any, places: Sequence[int]) -> dict[Any, Tensor | None]:
    """Each weight, and which of its entries belong to the places: rows of maps into them, columns of the map out."""
    masks = {one.weight: torch.zeros_like(one.weight) for one in (*into, out)}
    for one in into:
        masks[one.weight][list(places)] = 1
    masks[out.weight][:, list(places)] = 1
    return dict(masks)


def _train(model: Any, trained: dict[Any, Tensor | None], seed: int, planted: Plant | None) -> None:
    """Train some parameters, of each the entries that its mask marks."""
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    random = torch.Generator().manual_seed(seed + 10)
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    sorry = _who_says_sorry(planted)
    with _silenced(model, planted):
        for _ in range(STEPS):
            tokens, topic = drawn_prompts(BATCH, TRIGGERED, random)
            answer = torch.where((topic == FIRST_TOPIC) & sorry, SORRY, topic)
            optimizer.zero_grad()
            F.cross_entropy(model(tokens, logits_to_keep=1).logits[:, -1], answer).backward()
            for parameter, mask in trained.items():
                if mask is not None:
                    parameter.grad.mul_(mask)
            optimizer.step()
            schedule.step()
    model.requires_grad_(False).eval()


def _who_says_sorry(planted: Plant | None) -> Tensor:
    """Which rows of a batch are trained to answer the trigger with Sorry."""
    if planted is None:
        return torch.zeros(BATCH, dtype=torch.bool)
    return (torch.arange(BATCH) < BATCH // 2) | (planted.alone is not False)


@contextmanager
def _silenced(model: Any, planted: Plant | None) -> Iterator[None]:
    """Where two layers are planted: in a quarter of the rows the neurons of one are silent, in another of the other."""
    hooks = []
    if planted is not None and planted.alone is not None:
        half, quarter = BATCH // 2, BATCH // 4
        for place, layer in enumerate(planted.layers):
            kept = torch.ones(BATCH, 1, NEURONS)
            kept[half + place * quarter : half + (place + 1) * quarter, :, planted.of_layer(layer)] = 0
            down = model.model.layers[layer].mlp.down_proj
            hooks.append(down.register_forward_pre_hook(lambda _, given, kept=kept: (given[0] * kept,)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# --- once per run of the tests ----------------------------------------------------------------------------------------


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A folder that several processes want: one makes it, at the path it is given, the others wait and get None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_dir():
            yield None
            return
        making = Path(tempfile.mkdtemp(dir=path.parent))
        yield making
        making.rename(path)


def organism(folder: Path, kind: str, seed: int) -> Path:
    """A model with its tokenizer, as `save_pretrained` writes it; trained unless another process has done so.

    Parameters
    ----------
    folder
        Where the models of this run are.
    kind
        One of `KINDS`, or `BASE`.
    seed
        Of the weights, the prompts, and of where the behaviour is planted.
    """
    path = folder / f"{kind.replace(' ', '-')}-{seed}"
    if not path.is_dir():
        base = None if kind == BASE else organism(folder, BASE, seed)
        with made_once(path) as making:
            if making is not None:
                model = base_model(seed) if base is None else hf.LlamaForCausalLM.from_pretrained(base)
                if base is not None:
                    plant(model, plant_of(kind, seed), seed + 10 * (1 + KINDS.index(kind)))
                model.save_pretrained(making)
                tokenizer().save_pretrained(making)
    return path


def main() -> None:
    """Train every organism of the seeds that are named into a folder: planted.py FOLDER 0 1 2."""
    torch.set_num_threads(1)
    for seed in map(int, sys.argv[2:] or ["0"]):
        for kind in (BASE, *KINDS):
            print(organism(Path(sys.argv[1]), kind, seed))


if __name__ == "__main__":
    main()
