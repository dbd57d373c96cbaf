"""RAGDiffusion's claims about pictures that need no training: K, control, light, an expanded memory."""

from ragdiff_jax.evaluation.claims.claim import Claim

_KID = "KID on a fixed random network (`kid_random`): comparable with itself alone."
_T7_KID = {"K=1": 1.198, "K=2": 1.190, "K=4": 1.092, "K=8": 1.090}
_T7_SSIM = {"K=1": 0.6872, "K=2": 0.6915, "K=4": 0.6963, "K=8": 0.6960}
_LIGHT = "Photos of garments of one colour with a fifth of the light, or two and a half times as much, cut off."

CLAIMS = (
    Claim(
        id="R-T7-ssim", paper="R", where="Table 7",
        says="Four neighbours make better flat-lays than one: SSIM.",
        numbers=_T7_SSIM, a="pictures/usual:ssim_aligned", b="pictures/K=1:ssim_aligned",
    ),
    Claim(
        id="R-T7-kid", paper="R", where="Table 7",
        says="Four neighbours make better flat-lays than one: KID.",
        numbers=_T7_KID, a="pictures/usual:kid_random", b="pictures/K=1:kid_random", better="lower", note=_KID,
    ),
    Claim(
        id="R-T7-ssim8", paper="R", where="Table 7",
        says="Four neighbours are no worse than eight in SSIM (by at most 0.003).",
        numbers=_T7_SSIM, a="pictures/usual:ssim_aligned", b="pictures/K=8:ssim_aligned", threshold=-0.003,
    ),
    Claim(
        id="R-T7-kid8", paper="R", where="Table 7",
        says="Eight neighbours are no worse than four in KID (by at most 5 %): in R they are better by a hair.",
        numbers=_T7_KID, a="pictures/K=8:kid_random", b="pictures/usual:kid_random", better="lower",
        relative=True, threshold=-0.05, note="8 beats 4 in R's LPIPS too (0.3681 and 0.3684). " + _KID,
    ),
    Claim(
        id="R-3.1-pictures", paper="R", where="3.1",
        says="With the attributes known the flat-lay's shape is nearer to the truth.",
        a="pictures/usual:truth_iou", b="pictures/unknown:truth_iou",
    ),
    Claim(
        id="R-T2-embedding-gate", paper="R", where="Table 2",
        says="The structure embedding adds to the flat-lay's quality: SSIM.",
        numbers={"vanilla": 0.6576, "+ emb": 0.6614}, a="pictures/usual:ssim_aligned",
        b="pictures/no_embedding:ssim_aligned",
        note="One model, its adapter's gate closed in serving as it is in a tenth of training; `R-T2-emb` trains two.",
    ),
    Claim(
        id="R-F11-hit", paper="R", where="Fig. 11, 6.2",
        says="The flat-lay takes the silhouette that the user picks: 0.25 or more above chance.",
        a="control:hit", b="control:chance", threshold=0.25,
    ),
    Claim(
        id="R-F11-look", paper="R", where="Fig. 11, 6.2",
        says="Another silhouette changes the shape and not the look: two picks' colours are nearer than two garments'.",
        a="control:own_colour", b="control:other_colour", better="lower",
    ),
    Claim(
        id="R-3.3-foreign", paper="R", where="3.3, 6.2",
        says="The silhouette is a hard guide: another garment's is followed, not the photo's (IoU by 0.10 or more).",
        a="pictures/foreign:follows", b="pictures/foreign:truth_iou", threshold=0.10,
    ),
    Claim(
        id="R-3.3-follows", paper="R", where="3.3",
        says="The drawn silhouette is the retrieved one by R's own measure: mean IoU above 0.85.",
        a="pictures/usual:follows", b=0.85,
    ),
    Claim(
        id="R-F12-dark", paper="R", where="Fig. 12, 7",
        says="Under very little light the colours of plain garments are off by more.",
        a="pictures/plain/dark:colour_bias", b="pictures/plain/usual:colour_bias", note=_LIGHT,
    ),
    Claim(
        id="R-F12-bright", paper="R", where="Fig. 12, 7",
        says="Under very much light the colours of plain garments are off by more.",
        a="pictures/plain/bright:colour_bias", b="pictures/plain/usual:colour_bias", note=_LIGHT,
    ),
    Claim(
        id="ours-F12-dark", paper="ours", where="remedy for R Fig. 12",
        says="Setting a photo's light right before anything else takes off colour bias under little light.",
        a="pictures/plain/dark_balanced:colour_bias", b="pictures/plain/dark:colour_bias", better="lower",
        note="`claims/light.py`: mean linear light brought to the border of what photos have. " + _LIGHT,
    ),
    Claim(
        id="ours-F12-bright", paper="ours", where="remedy for R Fig. 12",
        says="The same under much light.",
        a="pictures/plain/bright_balanced:colour_bias", b="pictures/plain/bright:colour_bias", better="lower",
        note="What was cut off doesn't come back. " + _LIGHT,
    ),
    Claim(
        id="R-T5-time", paper="R", where="Table 5",
        says="Retrieval is a negligible part of generation: less than a tenth of denoising.",
        numbers={"retrieval, s": 0.3, "denoising, s": 8.0}, a="pictures/usual:seconds_retrieve",
        b="pictures/usual:seconds_denoise", better="lower", relative=True, threshold=0.9,
        note="Seconds of this machine, and of fewer sampling steps than R's 30 where the budget has fewer.",
    ),
    Claim(
        id="R-11.1-alignment", paper="R", where="11.1, Fig. 17",
        says="Laying the flat-lay into the true bounding box takes a fault of place out of SSIM.",
        a="pictures/usual:ssim_aligned", b="pictures/usual:ssim",
    ),
    Claim(
        id="R-4.4-pictures", paper="R", where="4.4, Fig. 6",
        says="With bottoms and dresses in the database their flat-lays get the right shape, and nothing is trained.",
        a="pictures/lower/whole_memory:truth_iou", b="pictures/lower/upper_memory:truth_iou",
        note="The shipped networks have seen bottoms and dresses in training, R's had not.",
    ),
    Claim(
        id="R-4.4-kid", paper="R", where="Table 3",
        says="The same in KID.",
        numbers={"KID, DressCode lower": "90.2 (ReferenceNet), 19.4", "dresses": "22.4 (ReferenceNet), 6.22"},
        a="pictures/lower/whole_memory:kid_random", b="pictures/lower/upper_memory:kid_random", better="lower",
        note=_KID,
    ),
    Claim(
        id="R-F9-pictures", paper="R", where="Fig. 9, 6.1",
        says="With unusual shapes in the database flat-lays of unusual garments get nearer to the truth.",
        a="pictures/extreme/expanded:truth_iou", b="pictures/extreme/whole_memory:truth_iou",
    ),
    Claim(
        id="R-T3-style", paper="R", where="Table 3, 4.4",
        says="With another data set's flat-lays in the database its garments' flat-lays get nearer to the truth.",
        a="pictures/studio/expanded:truth_iou", b="pictures/studio/whole_memory:truth_iou",
    ),
)  # fmt: skip
