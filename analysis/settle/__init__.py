"""Settles claims: chooses which seeds to add, runs them in batches, and says when a claim needs no more."""
