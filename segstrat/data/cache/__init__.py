"""What a study keeps in the cache folder; `uv run python -m segstrat.data.cache` lists and deletes it."""
