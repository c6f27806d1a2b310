"""Verifiers and rewards: what a response to a row is worth, and why."""
