"""How the tokenizer of a GGUF file splits text before it looks for tokens: as the file says, where that is known."""

from __future__ import annotations

from typing import Any

from stratoscope.model.gguf.file import GgufFile

_SPACE = "\u2581"
_AS_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "roberta-bpe"}
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def split_as_the_file_says(tokenizer: Any, file: GgufFile) -> tuple[str, ...]:
    """Set how a tokenizer splits text, and whether it puts a space in front, where transformers does not.

    Returns
    -------
    tuple of str
        Limits that name what is not known.
    """
    kind = file.settings.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _split(tokenizer, file.settings.get("tokenizer.ggml.pre"))
    if kind == "llama" and file.settings.get("tokenizer.ggml.add_space_prefix") is False:
        return _without_space(tokenizer)
    return ()


def _split(tokenizer: Any, rule: str | None) -> tuple[str, ...]:
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if rule in GGUF_PRE_TOKENIZER_SPLITS or rule in _AS_GPT2:
        return ()
    if rule not in _SINGLE_DIGITS:
        named = f"the rule {rule!r}" if rule else "a rule that it does not name"
        return (f"The tokenizer splits text by {named}; GPT-2's was used instead: token ids may differ from its own.",)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return ()


def _without_space(tokenizer: Any) -> tuple[str, ...]:
    """No space in front of a text, as the file says; a tokenizer that puts none there anyway is left as it is."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never", split=False)
    first = backend.encode("a", add_special_tokens=False).tokens[:1]
    if first and first[0].startswith(_SPACE):
        return ("The tokenizer puts a space in front of a text; the file says that the model's own does not.",)
    return ()
