"""One reader a published layout on disk: folders and split lists -> items."""
