"""The version, apart so that setup.py and `ragdiff --version` read it without importing JAX."""

__version__ = "0.1.0"
