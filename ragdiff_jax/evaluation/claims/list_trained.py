"""Claims of RAGDiffusion's that need variants trained from one stem: Tables 1, 2 and 3, PGEA, contrast augmentation."""

from ragdiff_jax.evaluation.claims.claim import Claim

_BRIEF = "All variants start from one trained stem's U-Net, make their conditions anew, and train equally and briefly."
_KID = "KID on a fixed random network. " + _BRIEF
# Table 1: the variant, R's name, SSIM, KID.
_TABLE_1 = (
    ("paint_by_example", "PBE", 0.5278, 10.08),
    ("controlnet", "ControlNet", 0.5225, 9.231),
    ("ip_adapter", "IP-Adapter", 0.6067, 3.747),
    ("encoder_tokens", "TryOffDiff", 0.6124, 14.19),
    ("latent_concat", "TryOffAnyone", 0.6575, 7.919),
    ("vanilla", "ReferenceNet", 0.6546, 1.399),
)


def _against(variant: str, name: str, ssim: float, kid: float) -> tuple[Claim, Claim]:
    return (
        Claim(
            id=f"R-T1-ssim-{variant}", paper="R", where="Table 1", says=f"RAGDiffusion beats {name} in SSIM.",
            numbers={name: ssim, "RAGDiffusion": 0.6963}, a="full/held_out:ssim_aligned",
            b=f"{variant}/held_out:ssim_aligned", note=_BRIEF,
        ),
        Claim(
            id=f"R-T1-kid-{variant}", paper="R", where="Table 1", says=f"RAGDiffusion beats {name} in KID.",
            numbers={name: kid, "RAGDiffusion": 1.092}, a="full/held_out:kid_random",
            b=f"{variant}/held_out:kid_random", better="lower", note=_KID,
        ),
    )  # fmt: skip


CLAIMS = (
    *(claim for row in _TABLE_1 for claim in _against(*row)),
    Claim(
        id="R-T2-emb", paper="R", where="Table 2", says="The structure embedding helps a model without it: SSIM.",
        numbers={"vanilla": 0.6576, "+ emb": 0.6614}, a="embedding_only/held_out:ssim_aligned",
        b="vanilla/held_out:ssim_aligned", note=_BRIEF,
    ),
    Claim(
        id="R-T2-emb-kid", paper="R", where="Table 2", says="The structure embedding helps a model without it: KID.",
        numbers={"vanilla": 1.405, "+ emb": 1.354}, a="embedding_only/held_out:kid_random",
        b="vanilla/held_out:kid_random", better="lower", note=_KID,
    ),
    Claim(
        id="R-T2-sil", paper="R", where="Table 2", says="The silhouette adds to the embedding: SSIM, by 0.01 or more.",
        numbers={"+ emb": 0.6614, "+ emb + sil": 0.6926}, a="full/held_out:ssim_aligned",
        b="embedding_only/held_out:ssim_aligned", threshold=0.01, note=_BRIEF,
    ),
    Claim(
        id="R-T2-sil-kid", paper="R", where="Table 2", says="The silhouette adds to the embedding: KID.",
        numbers={"+ emb": 1.354, "+ emb + sil": 0.940}, a="full/held_out:kid_random",
        b="embedding_only/held_out:kid_random", better="lower", note=_KID,
    ),
    Claim(
        id="R-T2-both", paper="R", where="Table 2, 4.3", says="The embedding still helps beside the silhouette: SSIM.",
        a="full/held_out:ssim_aligned", b="silhouette_only/held_out:ssim_aligned",
        note="R has no such row. " + _BRIEF,
    ),
    Claim(
        id="R-T2-mask", paper="R", where="Table 2", says="A retrieved silhouette is better than a generated one: SSIM.",
        numbers={"generating mask": 0.6426, "+ emb + sil": 0.6926}, a="full/held_out:ssim_aligned",
        b="mask_unet/held_out:ssim_aligned", note=_BRIEF,
    ),
    Claim(
        id="R-T2-mask-kid", paper="R", where="Table 2",
        says="A retrieved silhouette is better than a generated one: KID.",
        numbers={"generating mask": 3.570, "+ emb + sil": 0.940}, a="full/held_out:kid_random",
        b="mask_unet/held_out:kid_random", better="lower", note=_KID,
    ),
    Claim(
        id="R-T2-mask-vanilla", paper="R", where="Table 2",
        says="A generated silhouette is worse than none: SSIM below the vanilla model's.",
        numbers={"generating mask": 0.6426, "vanilla": 0.6576}, a="mask_unet/held_out:ssim_aligned",
        b="vanilla/held_out:ssim_aligned", better="lower", note=_BRIEF,
    ),
    Claim(
        id="R-T2-pgea", paper="R", where="Table 2", says="PGEA helps: SSIM.",
        numbers={"+ emb + sil": 0.6926, "full": 0.6963}, a="pgea/held_out:ssim_aligned",
        b="fresh_reference/held_out:ssim_aligned",
        note="Against a model whose networks begin as copies too; each of R's three stages is as long as a variant. "
        + _BRIEF,
    ),
    Claim(
        id="R-T2-pgea-kid", paper="R", where="Table 2", says="PGEA worsens KID (while FID gets better).",
        numbers={"KID, + emb + sil": 0.940, "KID, full": 1.092, "FID, + emb + sil": 10.22, "FID, full": 9.990},
        a="pgea/held_out:kid_random", b="fresh_reference/held_out:kid_random", note=_KID,
    ),
    Claim(
        id="R-3.3-logos", paper="R", where="3.3, 4.3",
        says="The autoencoder of 16 channels keeps logos that one of 4 loses: by 1 dB or more inside their boxes.",
        a="logos/autoencoder16:psnr", b="logos/autoencoder4:psnr", threshold=1.0,
        note="Both trained from nothing, equally long: the budget's scratch_steps.",
    ),
    Claim(
        id="R-T3-other-kid", paper="R", where="Table 3",
        says="On another data set, without tuning, RAGDiffusion beats ReferenceNet: KID.",
        numbers={"VITON-HD": "3.23 (ReferenceNet), 1.45", "DressCode upper": "6.24 (ReferenceNet), 4.51"},
        a="full/studio:kid_random", b="vanilla/studio:kid_random", better="lower", note=_KID,
    ),
    Claim(
        id="R-T3-other-shape", paper="R", where="Table 3, Fig. 19",
        says="The same in the flat-lay's shape.", a="full/studio:truth_iou", b="vanilla/studio:truth_iou", note=_BRIEF,
    ),
    Claim(
        id="R-F9-shape", paper="R", where="Fig. 9", says="On unusual shapes RAGDiffusion beats ReferenceNet: shape.",
        a="full/extreme:truth_iou", b="vanilla/extreme:truth_iou", note=_BRIEF,
    ),
    Claim(
        id="R-F10-shape", paper="R", where="Fig. 10", says="On bottoms and dresses it beats ReferenceNet: shape.",
        a="full/lower:truth_iou", b="vanilla/lower:truth_iou", note="Both have seen bottoms and dresses. " + _BRIEF,
    ),
    Claim(
        id="R-F12-contrast-dark", paper="R", where="Fig. 12, 7",
        says="Augmentation with contrast takes off colour bias under little light.",
        a="full/dark:colour_bias", b="no_augment/dark:colour_bias", better="lower",
        note="Without augmentation all four of R 9.5's operations are off. " + _BRIEF,
    ),
    Claim(
        id="R-F12-contrast-bright", paper="R", where="Fig. 12, 7", says="The same under much light.",
        a="full/bright:colour_bias", b="no_augment/bright:colour_bias", better="lower",
        note="Without augmentation all four of R 9.5's operations are off. " + _BRIEF,
    ),
)  # fmt: skip
