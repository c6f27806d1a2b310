"""Sweeps: kept results, and what is computed, tabled and drawn of them."""
