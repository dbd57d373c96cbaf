"""A RAGDiffusion that serves with conditions taken away, as its `null` takes them away in training."""

import dataclasses

import jax.numpy as jnp

from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.retrieval import fuse_landmarks
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated(RAGDiffusion):
    """`adapter_gate` 0 takes the structure embedding away, `landmark_gate` 0 the silhouette; 1 leaves them."""

    adapter_gate: float = 1.0
    landmark_gate: float = 1.0

    @classmethod
    def of(cls, model: RAGDiffusion, *, adapter_gate: float = 1.0, landmark_gate: float = 1.0) -> "Gated":
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(RAGDiffusion)}
        return cls(**fields, adapter_gate=adapter_gate, landmark_gate=landmark_gate)

    def condition(self, params, photo, embedding, neighbours, weights, landmarks, text, *, landmark=None):
        if landmark is None:
            landmark, _ = fuse_landmarks(landmarks, weights)
        ones = jnp.ones(photo.shape[0], jnp.float32)
        return self.make_conditions(
            params,
            photo_latents=self.encode(params, photo),
            structure=self.fuse(embedding, neighbours, weights),
            silhouette=landmark.astype(jnp.float32)[..., None],
            text=text,
            gates=Gates(reference=ones, adapter=self.adapter_gate * ones),
            landmark_gate=self.landmark_gate * ones,
        )
