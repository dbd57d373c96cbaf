"""Fashion-RAG's claims: how many garments, the text, retrieval, conflicts, wrong and many garments, F_theta's words."""

from ragdiff_jax.evaluation.claims.claim import Claim

_TOWER = (
    "By the CLIP of --tower; without one by the editor's own retrieval tower, which takes part in what it measures."
)
_FIRST = "Cosine of the drawn part with the garment nearest to the text. " + _TOWER
_KID = "KID on the measuring tower's vectors. " + _TOWER

CLAIMS = (
    Claim(
        id="F-Nr-kid", paper="F", where="4.3, N_r 0 to 3",
        says="Three retrieved garments make the picture more real than the text alone: KID.",
        numbers={"KID, N_r=0": 1.81, "KID, N_r=3": 1.49, "FID, N_r=0": 5.90, "FID, N_r=3": 5.42},
        a="edits/N=3:kid_tower", b="edits/N=0:kid_tower", better="lower", note=_KID,
    ),
    Claim(
        id="F-Nr-kid-more", paper="F", where="4.3, N_r 1 to 3",
        says="KID falls on as more garments are retrieved, from one to three.",
        a="edits/N=3:kid_tower", b="edits/N=1:kid_tower", better="lower", note=_KID,
    ),
    Claim(
        id="F-Nr-clipi", paper="F", where="4.3, CLIP-I",
        says="The picture is nearer to a retrieved garment than what the text alone draws.",
        a="edits/N=1:first", b="edits/N=0:first", note=_FIRST,
    ),
    Claim(
        id="F-Nr-dilutes", paper="F", where="4.3, CLIP-I",
        says="Three garments dilute the likeness to the first one that one alone gives.",
        a="edits/N=3:first", b="edits/N=1:first", better="lower", note=_FIRST,
    ),
    Claim(
        id="F-Nr-clipt", paper="F", where="4.3, CLIP-T",
        says="The text is followed no less with garments: CLIP-T falls by at most 2 %.",
        a="edits/N=3:text", b="edits/N=0:text", relative=True, threshold=-0.02, note=_TOWER,
    ),
    Claim(
        id="F-retrieval", paper="F", where="3.1",
        says="A text finds garments that are what it says: 0.10 or more words in common above chance.",
        a="text_retrieval:nearest", b="text_retrieval:chance", threshold=0.10,
    ),
    Claim(
        id="F-noise", paper="F", where="limits, open question 4",
        says="Three wrong garments mislead the picture: it is less like the right one.",
        a="edits/wrong=3:first", b="edits/N=3:first", better="lower", note=_FIRST,
    ),
    Claim(
        id="F-noise-curve", paper="F", where="limits, open question 4",
        says="The more of the three are wrong the worse: two worse than one.",
        a="edits/wrong=2:first", b="edits/wrong=1:first", better="lower", note=_FIRST,
    ),
    Claim(
        id="F-noise-text", paper="F", where="limits, open question 4",
        says="Wrong garments draw the picture away from the text.",
        a="edits/wrong=3:text", b="edits/N=3:text", better="lower", note=_TOWER,
    ),
    Claim(
        id="ours-noise", paper="ours", where="remedy for F, open question 4",
        says="Rejecting garments far below the best one's similarity keeps two wrong ones of three from harm.",
        a="edits/wrong=2/reject:first", b="edits/wrong=2:first", note="`ragdiff edit --reject 0.1`. " + _FIRST,
    ),
    Claim(
        id="F-conflict", paper="F", where="limits, open question 1",
        says="Garments that contradict each other are followed less well than such as agree.",
        a="edits/conflicting:first", b="edits/agreeing:first", better="lower", note=_FIRST,
    ),
    Claim(
        id="ours-conflict", paper="ours", where="remedy for F, open question 1",
        says="Averaging the garments' words by their similarity to the text resolves the conflict.",
        a="edits/conflicting/pool:first", b="edits/conflicting:first", note="`ragdiff edit --pool`. " + _FIRST,
    ),
    Claim(
        id="F-many", paper="F", where="open question 3",
        says="More than three garments bring little: ten pooled are at most 0.01 nearer than three.",
        a="edits/N=3:first", b="edits/pool=10:first", threshold=-0.01, note=_FIRST,
    ),
    Claim(
        id="F-words", paper="F", where="third experiment",
        says="F_theta's tokens lie near the words that say what the garment is.",
        a="words:own", b="words:chance",
        note="Share of tokens one of whose three nearest words its caption has; chance: another garment's caption.",
    ),
)  # fmt: skip
