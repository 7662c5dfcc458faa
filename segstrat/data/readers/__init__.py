"""One reader per published layout on disk: folders and split lists -> items."""
