"""Where everything of a picture stands on the page, in inches."""
