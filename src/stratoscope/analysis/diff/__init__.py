"""Two traces of the same prompts: what changed, what of it exceeds noise, and whether a patch did what it says."""
