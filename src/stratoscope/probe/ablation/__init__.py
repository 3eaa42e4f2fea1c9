"""`ablate`: what logits become when neurons and heads are set to other values, in memory, for one forward."""
