"""Package definition; the settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """Read from ragdiff_jax/version.py, not imported: that would need JAX."""
    return re.search(r'__version__ = "(.+?)"', (ROOT / "ragdiff_jax" / "version.py").read_text())[1]


# JAX 0.10.2 is the last one for Python 3.11. From 3.12 on the newest is taken; JAX 0.12 needs Flax 0.12.12.
JAX = [
    'jax>=0.10.2,<0.11; python_version < "3.12"',
    'jax>=0.10.2; python_version >= "3.12"',
    'flax>=0.12.8; python_version < "3.12"',
    'flax>=0.12.12; python_version >= "3.12"',
]

# The tests compare with torch on the CPU. pip ranks a "+cpu" build above the plain one where it sees both.
TORCH = ['torch==2.13.0; python_version < "3.12"', 'torch; python_version >= "3.12"']


def jax_extra(name: str) -> list[str]:
    return [
        f'jax[{name}]>=0.10.2,<0.11; python_version < "3.12"',
        f'jax[{name}]>=0.10.2; python_version >= "3.12"',
    ]


setup(
    name="ragdiff_jax",
    version=version(),
    description="Retrieval-augmented garment generation in JAX: a photo in, the standard flat-lay out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ragdiff_jax", "ragdiff_jax.*"]),
    package_data={"ragdiff_jax": ["assets/**/*"]},
    entry_points={"console_scripts": ["ragdiff = ragdiff_jax.cli.main:main"]},
    install_requires=[
        *JAX,
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.3,<1",
        "grain>=0.2.12",
        "array_record>=0.8.1",
        "ml_collections>=1.1",
        "numpy>=2",
        "scipy>=1.14",
        "pillow>=11.3",
        "safetensors>=0.5",
        "tokenizers>=0.21",
        'scann>=1.4; python_version < "3.14" and platform_system == "Linux"',
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6",  # TFDS imports it and does not ask for it
        "jaxtyping>=0.3",
        "tqdm>=4.66",
        "tensorboardX>=2.6",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6",
            "beartype>=0.20",
            "ruff>=0.9",
            "import-linter>=2.1",
            "scikit-learn>=1.5",
            *TORCH,
            "diffusers>=0.35",
            "transformers>=4.50",
        ],
        "cuda": jax_extra("cuda12"),
        "cuda13": jax_extra("cuda13"),
        "tpu": jax_extra("tpu"),
        "plan": ["libtpu"],  # the TPU's compiler, for `ragdiff plan` on a machine without one
        "analyze": ["scikit-learn>=1.5"],
        "hub": ["huggingface_hub>=0.25"],
        "torch": ["torch>=2.6", "transformers>=4.50"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
