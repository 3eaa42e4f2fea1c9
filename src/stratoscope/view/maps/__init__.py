"""Pictures of tokens × layers: the verbs that draw them, and how a trace becomes their content."""
