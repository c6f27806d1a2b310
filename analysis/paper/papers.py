"""Lists the papers whose claims are judged, in the order of the report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """Names a paper.

    letter: its key; the ids of its claims begin with it. read_in: where its words and numbers were read, if not in
    the paper itself. tables: those of its tables that PAPER_TABLES of tables.py has.
    """

    letter: str
    name: str
    title: str
    arxiv: str
    read_in: str = ""
    tables: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Returns what stands above its claims: "DAPO (arXiv 2503.14476)"."""
        return f"{self.name} (arXiv {self.arxiv}{f', read in {self.read_in}' if self.read_in else ''})"


PAPERS = (
    Paper(
        "C",
        "Klear-Reasoner",
        "Klear-Reasoner: Advancing Reasoning Capability via Gradient-Preserving Clipping Policy Optimization",
        "2508.07629",
        tables=("table1", "table2", "table3", "table4", "table5", "table6"),
    ),
    Paper(
        "G",
        "CE-GPPO",
        "CE-GPPO: Coordinating Entropy via Gradient-Preserving Clipping Policy Optimization in Reinforcement "
        "Learning",
        "2509.20712",
        "the README of github.com/Kwai-Klear/CE-GPPO",
        ("ce_gppo_methods",),
    ),
    Paper(
        "D",
        "DAPO",
        "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
        "2503.14476",
        tables=("dapo",),
    ),
)


def paper_of(claim_id: str) -> Paper:
    """Returns the paper of a claim's id. Raises ValueError where there is none of its letter."""
    for paper in PAPERS:
        if claim_id.startswith(paper.letter):
            return paper
    raise ValueError(f"{claim_id}: no paper of that letter; there are {', '.join(p.letter for p in PAPERS)}")


def claim_order(claim_id: str) -> tuple[int, int]:
    """Returns a sort key: claims go by paper, then by number."""
    return (PAPERS.index(paper_of(claim_id)), int(claim_id[1:]))
