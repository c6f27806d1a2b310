"""klear_lab: ablations of the Klear-Reasoner post-training workflow (arXiv 2508.07629)."""
