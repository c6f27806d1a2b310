"""Turns run folders into a report that sets what the runs say beside what the paper says: `python -m analysis`.

The rooms stand on each other, and none imports one above it: statistics and arms, then draw, runs, paper, sweeps,
claims, report, commands. Beside run folders they share little with `klear_lab`: the table of metrics
(klear_lab/metrics.py), which config keys can't change a result, and for one claim the clip methods themselves.
"""
