"""Lists the claims of all papers, in the order of the papers and of their numbers.

A new claim is an entry in its paper's file; a new paper is a file like those, and an entry in PAPERS of
analysis/paper/papers.py. A claim's effect is positive where the claim holds; a claim that two things do not differ
holds where the effect is within its margin. The embedded worlds have other scales than the papers' models, so only
signs are compared; the papers' values stand beside ours.
"""

from analysis.claims.ce_gppo import CE_GPPO
from analysis.claims.dapo import DAPO
from analysis.claims.klear_reasoner import KLEAR_REASONER

CLAIMS = (*KLEAR_REASONER, *CE_GPPO, *DAPO)
