"""Every byte of a file searched: what is packed in it opened, what is encoded read, and what is looked for found."""
