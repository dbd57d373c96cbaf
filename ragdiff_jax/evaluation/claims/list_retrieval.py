"""RAGDiffusion's claims about retrieval, SLLE and the memory: nothing is trained, nothing is drawn for them."""

from ragdiff_jax.evaluation.claims.claim import Claim

_T4_TOP1 = {"1,000": 0.766, "2,000": 0.782, "4,000": 0.806, "8,000": 0.797}
_T4_TOP5 = {"1,000": 0.934, "2,000": 0.932, "4,000": 0.937, "8,000": 0.934}
_T4_IOU = {"1,000": 0.872, "2,000": 0.885, "4,000": 0.902, "8,000": 0.905}
_PARTS = "The quarter and half are random parts of the memory; R curates each of its sizes anew (9.4)."
_KNOWN = "The attributes that a language model reads off the photo are drawn garments' own, of what can be seen."

CLAIMS = (
    Claim(
        id="R-T4-top1", paper="R", where="Table 4",
        says="Top-1 accuracy of the retrieved silhouette grows with the database, fourfold.",
        numbers=_T4_TOP1, a="retrieval:exact/whole/top1", b="retrieval:exact/quarter/top1", note=_PARTS,
    ),
    Claim(
        id="R-T4-iou", paper="R", where="Table 4",
        says="The retrieved silhouette's IoU grows with the database, fourfold.",
        numbers=_T4_IOU, a="retrieval:exact/whole/iou", b="retrieval:exact/quarter/iou", note=_PARTS,
    ),
    Claim(
        id="R-T4-iou-half", paper="R", where="Table 4",
        says="It still grows from half the database to all of it.",
        numbers=_T4_IOU, a="retrieval:exact/whole/iou", b="retrieval:exact/half/iou", note=_PARTS,
    ),
    Claim(
        id="R-T4-top5", paper="R", where="Table 4",
        says="One of the five nearest is right far more often than the nearest: by 0.10 or more.",
        numbers={"top-1": 0.806, "top-5": 0.937} | {f"top-5 at {size}": share for size, share in _T4_TOP5.items()},
        a="retrieval:exact/whole/top5", b="retrieval:exact/whole/top1", threshold=0.10,
    ),
    Claim(
        id="R-T4-chance", paper="R", where="Table 4",
        says="What is found is far better than a garment at random: IoU by 0.10 or more.",
        numbers={"IoU": 0.902}, a="retrieval:exact/whole/iou", b="retrieval:random/iou", threshold=0.10,
        note="R tells no chance level.",
    ),
    Claim(
        id="R-3.1-attributes", paper="R", where="3.1, 9.2",
        says="The attributes of a language model help retrieval where the picture alone is ambiguous.",
        a="retrieval:exact/whole/iou", b="retrieval:unknown/whole/iou", note=_KNOWN,
    ),
    Claim(
        id="R-3.2-slle", paper="R", where="3.2, Eq. 2",
        says="SLLE's weights rebuild the standard embedding better than the plain mean of the neighbours.",
        a="retrieval:exact/K=4/rebuilt", b="retrieval:exact/K=4/mean",
        note="By the cosine with the garment's true flat-lay's own vector.",
    ),
    Claim(
        id="R-3.2-manifold", paper="R", where="3.2, Eq. 3",
        says="SLLE draws the photo's embedding towards the standard one.",
        a="retrieval:exact/K=4/fused", b="retrieval:exact/raw",
        note="By the cosine with the garment's true flat-lay's own vector.",
    ),
    Claim(
        id="R-F7-rebuilt", paper="R", where="Fig. 7 (a), 4.5",
        says="A larger K makes the rebuilt embedding more accurate.",
        a="retrieval:exact/K=8/rebuilt", b="retrieval:exact/K=1/rebuilt",
    ),
    Claim(
        id="R-9.3-landmark", paper="R", where="9.3",
        says="The silhouette that four neighbours agree on is better than the nearest one's.",
        a="retrieval:exact/K=4/landmark_iou", b="retrieval:exact/K=1/landmark_iou",
    ),
    Claim(
        id="R-9.3-blend", paper="R", where="9.3",
        says="Choosing a neighbour's mask is better than the interpolated masks themselves.",
        a="retrieval:exact/K=4/landmark_iou", b="retrieval:exact/K=4/blend_iou",
        note="R's reason: blends are blurred and oversized. Here they are thresholded and held against the truth.",
    ),
    Claim(
        id="ours-landmark", paper="ours", where="remedy for R 9.3",
        says="The likeliest silhouette of 256 candidates is better than the one that four neighbours agree on.",
        a="retrieval:unknown/likeliest_iou", b="retrieval:unknown/K=4/landmark_iou",
        note="`retrieval/landmarks.py`; the pictures of R's own claims are made without it.",
    ),
    Claim(
        id="R-F7-pairs", paper="R", where="Fig. 7 (b)",
        says="A photo's embedding lies nearer to its own flat-lay's than to others'.",
        a="retrieval:exact/own", b="retrieval:exact/others",
    ),
    Claim(
        id="R-F7-categories", paper="R", where="Fig. 7 (b)",
        says="Embeddings of one category cluster, those of other categories lie apart.",
        a="retrieval:exact/category", b="retrieval:exact/unlike",
    ),
    Claim(
        id="R-9.4-curation", paper="R", where="9.4, 4.2",
        says="A curated database (no outliers, few for a dense region) is better than a random one of its size.",
        a="curation:curated/iou", b="curation:random/iou",
        note="`ragdiff memory build --select`, which keeps those that represent the others best, not an even spacing.",
    ),
    Claim(
        id="R-4.4-growth", paper="R", where="4.4, Table 3",
        says="Bottoms and dresses added to the database, and nothing trained, find their silhouettes.",
        numbers={"FID, DressCode lower": "124.5 (ReferenceNet), 40.5", "dresses": "51.2 (ReferenceNet), 23.1"},
        a="growth:after/landmark_iou", b="growth:before/landmark_iou",
        note="The shipped networks have seen bottoms and dresses in training, R's had not.",
    ),
    Claim(
        id="R-4.4-style", paper="R", where="4.4",
        says="Another data set's flat-lays in the database help with its photos, and nothing is trained.",
        a="style_growth:after/landmark_iou", b="style_growth:before/landmark_iou",
        note="The other data set: garments rendered in the studio style; silhouettes are as those of the drawn.",
    ),
    Claim(
        id="R-F9-growth", paper="R", where="Fig. 9, 6.1",
        says="Flat-lays of unusual shapes in the database help with garments of unusual shapes.",
        a="extreme_growth:after/landmark_iou", b="extreme_growth:before/landmark_iou",
    ),
)  # fmt: skip
