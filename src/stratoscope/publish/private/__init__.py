"""The level `private`: means of clipped prompts with noise, so that no prompt changes much of what anybody can see."""
