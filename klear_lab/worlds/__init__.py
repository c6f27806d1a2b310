"""The embedded worlds: toy tasks that run the full pipeline on a laptop."""
