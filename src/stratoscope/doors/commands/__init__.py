"""One file a command: its own options and what it does; `cli.COMMANDS` lists them."""
