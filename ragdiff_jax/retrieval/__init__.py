"""SLLE, landmark fusion, searchers and the memory of standard garments."""

from ragdiff_jax.retrieval.device_memory import DeviceMemory, search
from ragdiff_jax.retrieval.index import Searcher, exact_search, make_searcher
from ragdiff_jax.retrieval.items import encode_landmark
from ragdiff_jax.retrieval.landmarks import LandmarkRule, fuse_landmarks, iou, likeliest_landmark, offered_landmarks
from ragdiff_jax.retrieval.memory import Memory, MemoryItem
from ragdiff_jax.retrieval.neighbours import NeighbourTable, find_neighbours
from ragdiff_jax.retrieval.slle import fuse_embeddings, slle_weights

__all__ = [
    "DeviceMemory",
    "LandmarkRule",
    "Memory",
    "MemoryItem",
    "NeighbourTable",
    "Searcher",
    "encode_landmark",
    "exact_search",
    "find_neighbours",
    "fuse_embeddings",
    "fuse_landmarks",
    "iou",
    "likeliest_landmark",
    "make_searcher",
    "offered_landmarks",
    "search",
    "slle_weights",
]
