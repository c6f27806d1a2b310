"""Runs: folders or wandb in, tidy frames of comparable runs out."""
