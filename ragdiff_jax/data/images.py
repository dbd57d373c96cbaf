"""Pictures in and out: `uint8 [H, W, 3]` RGB arrays, whatever the file held.

Reading is hardened: a fixed list of formats, the size checked in the header before anything is decoded, EXIF
orientation applied, transparency laid over white, 16-bit / float / palette / CMYK brought to 8-bit RGB, colours of
another profile (phones' Display P3, printers' CMYK) to sRGB. Every failure is a `UserError` of one line that names the
file and the fix.
"""

import contextlib
import functools
import io
import logging
import os
import secrets
import stat
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageCms, ImageOps

from ragdiff_jax.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")  # of files in a folder
# Pillow's own bomb-warning limit: 4 bytes a pixel and one converted copy stay below 1 GB.
MAX_PIXELS = 89_478_485
MAX_SIDE = 2048
_LARGEST_PROFILE = 4 << 20  # bytes; a printer's tables take two million

# What Pillow's decoders raise on hostile bytes (it documents OSError only).
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or its errors reach stderr beside our one line
_warnings_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder that are pictures by their endings, sorted; hidden ones and folders are passed over.

    Raises `UserError` for a folder that can't be read.
    """
    try:
        inside = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
        return sorted(path for path in inside if path.is_file())
    except OSError as error:
        raise UserError(f"{one_line(folder)}: cannot be read ({_reason(error)}); check its permissions") from error


def load_image(
    path: str | os.PathLike,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
    ground: Literal["white", "black"] = "white",
) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture file as 8-bit RGB, upright, over `ground`, its longer side at most `max_side`.

    Raises `UserError` for a missing file, a folder, an unreadable, empty or truncated file, something that
    isn't a picture of an allowed format, and more than `max_pixels` pixels (found from the header, before
    decoding).
    """
    name = one_line(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: cannot be opened ({_reason(error)}); check the path and its permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{name}: is a folder, not a picture; name the picture files in it")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{name}: is not a regular file; name a picture file")
    if status.st_size == 0:
        raise UserError(f"{name}: is empty (0 bytes); copy or download it again")
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({_reason(error)}); change its permissions") from error
    with file:
        return _decode(file, name, max_pixels, max_side, ground)


def decode_image(
    data: bytes,
    name: str = "image",
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
    ground: Literal["white", "black"] = "white",
) -> UInt8[np.ndarray, "h w 3"]:
    """`load_image` for encoded bytes; `name` stands in the error line. `ground`: what transparency is laid over."""
    if not data:
        raise UserError(f"{one_line(name)}: is empty (0 bytes); copy or download it again")
    return _decode(io.BytesIO(data), one_line(name), max_pixels, max_side, ground)


def decode_indices(data: bytes, name: str = "label map") -> UInt8[np.ndarray, "h w"]:
    """A picture of class numbers, at its full size: the indices of a palette PNG or the values of an 8-bit grey one.

    Raises `UserError` for other modes (a colour or a lossy picture has no class numbers) and as `decode_image` does.
    """
    name = one_line(name)
    if not data:
        raise UserError(f"{name}: is empty (0 bytes); copy or download it again")
    try:
        with _open(io.BytesIO(data), name, MAX_PIXELS) as image:
            if image.format not in ("PNG", "GIF", "TIFF", "BMP") or image.mode not in ("P", "L"):
                raise UserError(
                    f"{name}: is a {image.format} of mode {image.mode}, not one class number a pixel; "
                    "save it as a palette or 8-bit grey PNG"
                )
            image.load()
            return np.array(image, np.uint8)
    except _DECODE_ERRORS as error:
        raise UserError(f"{name}: is damaged or cut short ({_reason(error)}); copy it again") from error


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """(height, width) of an encoded picture when upright, from its header. Raises `UserError` as `decode_image`."""
    name = one_line(name)
    if not data:
        raise UserError(f"{name}: is empty (0 bytes); copy or download it again")
    try:
        with _open(io.BytesIO(data), name, MAX_PIXELS) as image, _quiet():
            # A TIFF's size is that of the upright picture already.
            turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size if turned else image.size[::-1]
    except _DECODE_ERRORS as error:
        raise UserError(f"{name}: is damaged or cut short ({_reason(error)}); copy it again") from error


def _decode(file, name, max_pixels, max_side, ground="white"):
    try:
        with _open(file, name, max_pixels) as image:
            if image.format in ("JPEG", "MPO"):
                image.draft(None, (max_side, max_side))  # decodes at 1/2, 1/4 or 1/8: no full-size buffer
            # A TIFF's metadata is parsed, and its orientation applied, by load(): EXIF is asked for after it.
            with _quiet() if image.format == "TIFF" else contextlib.nullcontext():
                image.load()
            with _quiet():
                orientation = image.getexif().get(0x0112, 1)
            image = _to_rgb(image, max_side, ground, image.info.get("icc_profile"))
            if orientation in range(2, 9):
                image.getexif()[0x0112] = orientation
                image = ImageOps.exif_transpose(image)
            return np.array(image, np.uint8)
    except _DECODE_ERRORS as error:
        raise UserError(
            f"{name}: is damaged or cut short ({_reason(error)}); copy it again or save it as PNG or JPEG"
        ) from error


@contextlib.contextmanager
def _quiet():
    """Pillow's remarks on odd metadata are no news to the user; a bomb is an error."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(file, name, max_pixels):
    try:
        with _quiet():
            image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{name}: has more than {min(max_pixels, MAX_PIXELS):,} pixels; save it smaller first"
        ) from None
    except _DECODE_ERRORS as error:
        raise UserError(
            f"{name}: is not a picture in a known format ({', '.join(FORMATS)}); convert it to PNG or JPEG"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(f"{name}: {width}x{height} is more than {max_pixels:,} pixels; save it smaller first")
    if width < 1 or height < 1:
        raise UserError(f"{name}: has no pixels ({width}x{height}); save it again")
    return image


def _to_rgb(image, max_side, ground, profile):
    """Any Pillow mode -> sRGB, shrunk to `max_side` as early as the mode allows."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bit(image))
    if image.mode == "P" or image.mode == "1":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")  # indices can't be averaged
    transparent = image.has_transparency_data
    if transparent and image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if transparent:
        image = image.convert("RGBA")
        colours = _in_srgb(image.convert("RGB"), profile)
        colours.putalpha(image.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", image.size, ground), colours).convert("RGB")
    return _in_srgb(image, profile).convert("RGB")


def _in_srgb(image, profile):
    """The colours of another profile as sRGB shows them; a profile that can't be used is passed over, as viewers do."""
    if not profile or len(profile) > _LARGEST_PROFILE:
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(given).lower():
            return image
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, *_DECODE_ERRORS):
        return image


def _to_8_bit(image):
    """16-bit, 32-bit and float grey -> uint8; white is the least of 1, 255 and 65535 that holds all."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return (values >> 8).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max(initial=0.0))
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if top <= white), top)
    return np.clip(finite * (255.0 / white), 0, 255).astype(np.uint8)


def resize(image: UInt8[np.ndarray, "h w 3"], size: int | tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Antialiased bicubic resize to `size` (a side, or (height, width))."""
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def pad_to_square(
    image: UInt8[np.ndarray, "h w 3"], fill: Literal["edge", "white"] = "white"
) -> UInt8[np.ndarray, "s s 3"]:
    """Centres the picture in a square of its longer side; the new pixels are white or repeat the border's."""
    height, width, _ = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    widths = ((top, side - height - top), (left, side - width - left), (0, 0))
    if fill == "edge":
        return np.pad(image, widths, mode="edge")
    return np.pad(image, widths, constant_values=255)


def square(
    image: UInt8[np.ndarray, "h w 3"], size: int, fill: Literal["edge", "white"] = "white"
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The whole picture, undistorted, in a `size` x `size` square: scaled by its longer side, then padded."""
    return pad_to_square(resize_to_side(image, size), fill)


def resize_to_side(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Undistorted, the longer side `size` pixels."""
    return resize(image, _scaled(image.shape[:2], size))


def _scaled(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) whose longer side is `size`."""
    scale = size / max(shape)
    height, width = (min(size, max(1, round(side * scale))) for side in shape)
    return height, width


def square_mask(mask: Bool[np.ndarray, "h w"], size: int) -> Bool[np.ndarray, "{size} {size}"]:
    """`square` for a silhouette: area average, padded with background, thresholded at one half."""
    if mask.shape == (size, size):
        return mask
    shape = _scaled(mask.shape, size)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.array(grey.resize(shape[::-1], Image.Resampling.BILINEAR)) > 127
    top, left = (size - shape[0]) // 2, (size - shape[1]) // 2
    return np.pad(small, ((top, size - shape[0] - top), (left, size - shape[1] - left)))


def picture_ending(data: bytes) -> str:
    """Of an encoded picture's file, by its first bytes: .jpg, .webp or .avif, and .png for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(b"RIFF"):
        return ".webp"
    return ".avif" if data[4:12] in (b"ftypavif", b"ftypavis") else ".png"


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Lossless bytes of a picture."""
    return _encode(Image.fromarray(image), "PNG")


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int = 92) -> bytes:
    """JPEG bytes of a picture, colours at full resolution (small garments lose their prints at 4:2:0)."""
    return _encode(Image.fromarray(image), "JPEG", quality=quality, subsampling=0)


def encode_avif(image: UInt8[np.ndarray, "h w 3"], quality: int = 60) -> bytes:
    """AVIF bytes of a picture, colours at full resolution: at 64 pixels two thirds of what JPEG takes."""
    return _encode(Image.fromarray(image), "AVIF", quality=quality, subsampling="4:4:4", speed=10)


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """A silhouette as 1-bit PNG."""
    return _encode(Image.fromarray(mask), "PNG")


def encode_grey(values: UInt8[np.ndarray, "h w"]) -> bytes:
    """Class numbers, or anything of 8 bits a pixel, as grey PNG; `decode_indices` reads them back."""
    return _encode(Image.fromarray(values), "PNG")


def decode_mask(data: bytes, name: str = "mask") -> Bool[np.ndarray, "h w"]:
    """Any picture as silhouette: brighter than half is garment, of a picture of 0 and 1 what is 1.

    Of a partly transparent one, what is bright and opaque, or, where nothing is bright, what is opaque. Raises
    `UserError` as `decode_image` does.
    """
    return _silhouette(functools.partial(decode_image, data, name))


def load_mask(path: str | os.PathLike) -> Bool[np.ndarray, "h w"]:
    """`decode_mask` of a file. Raises `UserError` as `load_image` does."""
    return _silhouette(functools.partial(load_image, path))


def _silhouette(read: Callable[..., UInt8[np.ndarray, "h w 3"]]) -> Bool[np.ndarray, "h w"]:
    picture = read(ground="black")
    bright = picture.mean(axis=-1) > (127 if picture.max() > 1 else 0)
    if bright.any():
        return bright
    over_white = read().mean(axis=-1) > 127
    return ~over_white if over_white.any() else bright


def _encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save_image(path: str | os.PathLike, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes a picture whole or not at all; the ending says the format (.png, .jpg, .jpeg, .webp).

    Makes the folder when it is missing. Raises `UserError` for another ending and for a place that can't be
    written.
    """
    path = Path(path)
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if path.suffix.lower() not in kinds:
        raise UserError(
            f"{one_line(path)}: cannot write {path.suffix or 'a file without ending'}; use .png or .jpg"
        )
    kind = kinds[path.suffix.lower()]
    options = {} if kind == "PNG" else {"quality": 95}
    write_atomic(path, _encode(Image.fromarray(image), kind, **options))


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file under a temporary name beside it, then renames: readers see the old or the new, never
    half.
    """
    path = Path(path)
    start = os.fsdecode(os.fsencode(path.name)[:80])  # a name has 255 bytes, whatever its letters
    temporary = path.with_name(f".{start}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut leaves the new name with nothing in it
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{one_line(path)}: cannot be written ({_reason(error)}); choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def one_line(path: str | os.PathLike) -> str:
    """A path for an error message: control characters escaped, so that the message stays one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def _reason(error):
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:120]
