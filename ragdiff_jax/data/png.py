"""PNG bytes of many small pictures: half the time of a general encoder, which tries five filters a row."""

import struct
import zlib

import numpy as np
from jaxtyping import Bool, UInt8

_MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_UP = 2  # the filter: what differs from the row above


def fast_png(picture: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"] | Bool[np.ndarray, "h w"]) -> bytes:
    """An RGB picture, a grey one, or a silhouette as 1-bit PNG; a little larger than `images.encode_png`'s."""
    height, width = picture.shape[:2]
    depth, kind = (1, _GREY) if picture.dtype == bool else (8, _GREY if picture.ndim == 2 else _RGB)
    rows = np.packbits(picture, axis=1) if depth == 1 else picture.reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0], filtered[0, 1:] = _UP, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as the format has it
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    packed = packer.compress(filtered.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return _MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
