"""Recording: sites and prompts become blocks of a trace. Needs torch, except for the prompts file and the plan."""
