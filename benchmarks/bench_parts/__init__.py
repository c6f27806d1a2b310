"""The parts of benchmarks/bench.py; each has sides that do the same work, in processes of their own, in turn."""
