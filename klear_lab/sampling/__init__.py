"""Sampling: token ids of prompts in, token ids of responses out."""
