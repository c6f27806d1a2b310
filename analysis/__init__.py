"""From run folders to a report: what the runs say, beside what the paper says.

One direction: runs -> comparable -> statistics -> tables and figures -> report. Nothing here imports
`klear_lab`; the run folder is the only thing the two packages share. `python -m analysis` runs the whole of
it.
"""
