"""Prompts as people write them: their texts, messages and labels, and the files that hold them."""
