"""Attacks on what was published, as strong as those that were published: each a file, on plain arrays first."""
