"""Prompts as token ids, and as padded batches."""
