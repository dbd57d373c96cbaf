"""Claims one after another: what each needs is measured once and kept, then it is judged."""

from collections.abc import Callable, Sequence

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.claims.claim import Claim
from ragdiff_jax.evaluation.claims.measures import MEASURES
from ragdiff_jax.evaluation.claims.store import Measured, Store
from ragdiff_jax.evaluation.claims.verdict import Finding, judge, not_run
from ragdiff_jax.evaluation.claims.world import NotRun, World

Judged = tuple[Claim, Finding]


class Runner:
    """Measures and judges. What is on the disk under the same fingerprint isn't measured again."""

    def __init__(
        self,
        world: World,
        seeds: Sequence[int],
        begin: Callable[[str, int], None] = lambda name, seed: None,
        end: Callable[[str, int], None] = lambda name, seed: None,
    ):
        """`begin` is told of each measurement that has to be made now, `end` of each that there is, once."""
        self.world, self.seeds = world, tuple(seeds)
        self.store = Store(world.out / "measured")
        self.begin, self.end = begin, end
        self._found: dict[tuple[str, int], Measured | NotRun] = {}

    def measured(self, name: str, seed: int) -> Measured:
        """A measurement, made now if it isn't kept. Raises `NotRun` where it can't be made, also the second time."""
        if (name, seed) not in self._found:
            try:
                self._found[name, seed] = self._measure(name, seed)
            except (NotRun, UserError) as error:
                self._found[name, seed] = NotRun(str(error))
            self.end(name, seed)
        found = self._found[name, seed]
        if isinstance(found, NotRun):
            raise found
        return found

    def kept(self, name: str, seed: int) -> Measured | None:
        """What was measured in this run, or None."""
        found = self._found.get((name, seed))
        return found if isinstance(found, Measured) else None

    def _measure(self, name: str, seed: int) -> Measured:
        measure = MEASURES[name]
        key = measure.key(self.world, seed)
        found = self.store.read(name, key)
        if found is None:
            self.begin(name, seed)
            self.store.write(name, key, measure.run(self.world, seed))
            found = self.store.read(name, key)  # the numbers as they are kept
            if found is None:
                raise UserError(f"{self.store.path(name, key)}: can't be read back; is the disk full?")
        return found

    def judge(self, claim: Claim) -> Finding:
        """A claim's finding under all seeds; its bootstrap's seed is the first."""
        sides = []
        for side in (claim.a, claim.b):
            if not isinstance(side, str):
                sides.append(None)
                continue
            try:
                sides.append([self.measured(side.partition(":")[0], seed) for seed in self.seeds])
            except NotRun as reason:
                return not_run(str(reason))
        return judge(claim, sides[0], sides[1], seed=self.seeds[0])

    def run(self, claims: Sequence[Claim], step: Callable[[Claim, Finding], None] = lambda c, f: None) -> list[Judged]:
        """All claims in their order; `step` is called with each finding."""
        judged = []
        for claim in claims:
            finding = self.judge(claim)
            judged.append((claim, finding))
            step(claim, finding)
        return judged


def needed(claims: Sequence[Claim]) -> list[str]:
    """The measures of claims, each once, in the order in which they are made."""
    return list(dict.fromkeys(name for claim in claims for name in claim.measures))
