"""GGUF files: their settings, tensors and tokenizer, each applied, proved or refused."""
