"""How the tokenizer of a GGUF file splits text before it looks for tokens: as the file says, where that is known."""

from __future__ import annotations

from typing import Any

from stratoscope.model.gguf_file import GgufFile

_AS_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "roberta-bpe"}
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def split_as_the_file_says(tokenizer: Any, file: GgufFile) -> tuple[str, ...]:
    """Set the rule by which a byte-level tokenizer splits text, which transformers knows for some files only.

    Returns
    -------
    tuple of str
        A limit that names the rule, where it is not known.
    """
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    rule = file.settings.get("tokenizer.ggml.pre")
    known = rule in GGUF_PRE_TOKENIZER_SPLITS or rule in _AS_GPT2
    if file.settings.get("tokenizer.ggml.model") != "gpt2" or known:
        return ()
    if rule not in _SINGLE_DIGITS:
        named = f"the rule {rule!r}" if rule else "a rule that it does not name"
        return (f"its tokenizer splits text by {named}, for which GPT-2's was used: token ids may differ from its own",)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return ()
