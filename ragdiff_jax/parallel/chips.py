"""What chips can do at most: the table behind MFU and `ragdiff plan`.

Vendors' data sheets: dense bfloat16 operations a second, bytes of memory and of its traffic a second, bytes a second
that all of a chip's links to its neighbours (ICI, NVLink) carry together.
"""

from dataclasses import dataclass

GB = 1e9
GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """`flops` and bandwidths are a second's; `kinds` are substrings of JAX's `device_kind`, in lower case.

    `topology`: libtpu's name of a machine of these, where one can be compiled for that isn't there.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    topology: str = ""


# The first that fits counts: "tpu v5" alone is v5p.
CHIPS = (
    Chip("v5e", ("tpu v5 lite", "tpu v5e"), 197e12, 16 * GIB, 819 * GB, 200 * GB, "v5e"),
    Chip("v5p", ("tpu v5p", "tpu v5"), 459e12, 95 * GIB, 2765 * GB, 600 * GB, "v5"),
    Chip("v6e", ("tpu v6 lite", "tpu v6e"), 918e12, 32 * GIB, 1640 * GB, 448 * GB, "v6e"),
    Chip("v7x, one of its two cores", ("tpu v7", "tpu7x"), 1153e12, 96 * GIB, 3690 * GB, 600 * GB),
    Chip("v4", ("tpu v4",), 275e12, 32 * GIB, 1228 * GB, 300 * GB),
    Chip("B200", ("b200",), 2250e12, int(180 * GB), 8000 * GB, 1800 * GB),
    Chip("H200", ("h200",), 989e12, int(141 * GB), 4800 * GB, 900 * GB),
    Chip("H100 PCIe", ("h100 pcie",), 756e12, int(80 * GB), 2000 * GB, 600 * GB),
    Chip("H100 NVL", ("h100 nvl",), 835e12, int(94 * GB), 3900 * GB, 600 * GB),
    Chip("H100", ("h100",), 989e12, int(80 * GB), 3350 * GB, 900 * GB),
    Chip("A100 80GB", ("a100-sxm4-80gb", "a100 80gb"), 312e12, int(80 * GB), 2039 * GB, 600 * GB),
    Chip("A100", ("a100",), 312e12, int(40 * GB), 1555 * GB, 600 * GB),
    Chip("L40S", ("l40s",), 362e12, int(48 * GB), 864 * GB, 64 * GB),
    Chip("L40", ("l40",), 181e12, int(48 * GB), 864 * GB, 64 * GB),
    Chip("L4", ("l4",), 121e12, int(24 * GB), 300 * GB, 64 * GB),
)


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`; None for one that isn't in the table (a CPU)."""
    kind = device_kind.lower()
    return next((chip for chip in CHIPS if any(part in kind for part in chip.kinds)), None)
