"""What a training sample of RAGDiffusion is not told, for guidance and for users who don't have it either."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
    """Chances that a training sample loses a condition, drawn apart for each sample (docs/papers.md).

    `everything` takes text, structure and reference together; `reference` is the photo's, by whichever way it comes;
    `retrieved_landmark` is the share of samples that see the retrieved (or predicted) silhouette instead of the true
    one, where the two have at least `retrieved_iou` in common: one of another kind of garment teaches that silhouettes
    are not to be believed. `landmark` takes the silhouette, whichever it is.
    """

    text: float = 0.05
    structure: float = 0.05
    everything: float = 0.05
    reference: float = 0.1
    retrieved_landmark: float = 0.5
    retrieved_iou: float = 0.0
    landmark: float = 0.0
