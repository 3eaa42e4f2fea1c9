"""Classes of prompts: what counts as one observation, how two classes are tested, and what chance alone gives."""
