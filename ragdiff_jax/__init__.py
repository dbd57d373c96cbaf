"""ragdiff_jax: retrieval-augmented garment generation in JAX."""
