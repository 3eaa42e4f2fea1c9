"""Two traces of the same prompts: of a base and a tuned model, before and after a patch, in two precisions."""
