"""Attributes and captions for pictures that have none: three annotators, one resumable run."""
