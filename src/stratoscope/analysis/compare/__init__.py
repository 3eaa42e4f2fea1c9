"""Two prompts side by side: token by aligned token, their peak neurons, and how far other pairs of the trace differ."""
