"""Pages of HTML, their scripts and their styles."""
