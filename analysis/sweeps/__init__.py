"""Keeps the results of sweeps, and computes, tables and draws them."""
