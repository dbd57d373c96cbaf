"""Contrastive losses of any batch size, and towers whose activations fit at any batch size."""

from ragdiff_jax.training.large_batch.info_nce import info_nce
from ragdiff_jax.training.large_batch.micro_batches import micro_batched, row_keys
from ragdiff_jax.training.large_batch.sigmoid import sigmoid_loss

__all__ = ["info_nce", "micro_batched", "row_keys", "sigmoid_loss"]
