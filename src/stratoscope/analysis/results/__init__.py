"""What every verb returns: a tree of tables, how it is stored, read again and made again."""
