"""Policies: models and tokenizers, their log-probabilities, and the state of their training."""
