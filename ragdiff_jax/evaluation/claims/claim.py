"""A claim: what a paper says, the two columns compared for it here, and the threshold, fixed before running."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ragdiff_jax.errors import UserError

Paper = Literal["R", "F", "ours"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One direction that a paper's numbers have, as a test of paired columns.

    Attributes:
      id: e.g. `R-T4-top1`: the paper, its table or figure, what of it.
      paper: R (RAGDiffusion), F (Fashion-RAG), or ours: a remedy for what a paper names as a fault.
      where: table, figure or section.
      says: the claim in a sentence.
      numbers: the paper's own, by their labels; empty where it shows pictures or only says so.
      a, b: `MEASURE:COLUMN`. `b` may be a number that mean(a) is held against.
      better: which way of a against b the claim goes.
      threshold: the improvement of a over b (in the direction of `better`) that has to be exceeded. Below 0: how much
        worse a may be where the claim is "no worse".
      relative: the improvement is a share of b's mean.
      note: what the small world changes, or why an answer is what it is.
    """

    id: str
    paper: Paper
    where: str
    says: str
    a: str
    b: str | float
    better: Literal["higher", "lower"] = "higher"
    threshold: float = 0.0
    relative: bool = False
    numbers: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that it needs, each once."""
        sides = [side.partition(":")[0] for side in (self.a, self.b) if isinstance(side, str)]
        return tuple(dict.fromkeys(sides))

    @property
    def test(self) -> str:
        """The test in words."""
        unit = " (share of the second)" if self.relative else ""
        sign = ("-", "+")[self.threshold >= 0]
        return f"{self.a} {self.better} than {self.b}, improvement above {sign}{abs(self.threshold):g}{unit}"


def chosen(claims: tuple[Claim, ...], only: list[str] | None) -> tuple[Claim, ...]:
    """Those whose id is one of `only`, or else begins with it or matches it as a pattern (`*`); None: all.

    Raises `UserError` for a word that fits none.
    """
    import difflib
    import fnmatch

    if not only:
        return claims
    found = set()
    for word in only:
        fits = {claim.id for claim in claims if claim.id == word}
        fits = fits or {c.id for c in claims if c.id.startswith(word) or fnmatch.fnmatchcase(c.id, word)}
        if not fits:
            near = difflib.get_close_matches(word, [claim.id for claim in claims], n=3, cutoff=0.3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --list"
            raise UserError(f"--only {word}: no such claim; {hint}")
        found |= fits
    return tuple(claim for claim in claims if claim.id in found)
