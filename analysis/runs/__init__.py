"""Reads runs from folders or wandb, and makes tidy frames and tables of those that may be compared."""
