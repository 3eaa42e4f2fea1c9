"""Pictures, pages and reports as they may be published: rebuilt of what is known of them, or drawn again."""
