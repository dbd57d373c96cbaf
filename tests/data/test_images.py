import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.data import images
from ragdiff_jax.data.images import (
    decode_image,
    decode_mask,
    encode_jpeg,
    encode_mask,
    encode_png,
    load_image,
    pad_to_square,
    resize,
    save_image,
    square,
    square_mask,
)
from ragdiff_jax.errors import UserError

RAMP = np.stack([*np.meshgrid(np.arange(0, 240, 6), np.arange(0, 240, 8)), np.full((30, 40), 90)], -1)
RAMP = RAMP.astype(np.uint8)  # 30 high, 40 wide; every quarter differs


def png(width, height, *, colour=6, depth=8, rows=None):
    """A PNG made by hand: the header says any size, the pixels are zeros (streamed) or cut off."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    squeeze, body = zlib.compressobj(1), b""
    for _ in range(height if rows is None else rows):
        body += squeeze.compress(bytes(1 + width * channels * depth // 8))
    body += squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def saved(path, image, **options):
    image.save(path, **options)
    return load_image(path)


# MARK: what is handled


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "gif"])
def test_formats_keep_their_pixels(tmp_path, kind):
    grey = np.repeat(RAMP[..., :1], 3, axis=-1)  # GIF has 256 colours
    source = Image.fromarray(grey if kind == "gif" else RAMP)
    found = saved(tmp_path / f"a.{kind}", source, **({"lossless": True} if kind == "webp" else {}))
    np.testing.assert_array_equal(found, np.asarray(source))


def test_avif_is_read_and_keeps_colours_at_full_resolution(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (220, 30, 30), (30, 30, 220)  # purple at half the resolution
    data = images.encode_avif(stripes, quality=90)
    (tmp_path / "stripes.avif").write_bytes(data)
    found = load_image(tmp_path / "stripes.avif").astype(int)
    assert np.abs(found - stripes).mean() < 12
    assert images.picture_ending(data) == ".avif"


def test_a_folder_s_pictures_are_its_visible_files_of_known_endings(tmp_path):
    for name in ("b.AVIF", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in images.picture_files(tmp_path)] == ["a.png", "b.AVIF"]
    with pytest.raises(UserError, match="cannot be read"):
        images.picture_files(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    # What a viewer shows must be RAMP, so the stored pixels are turned the other way.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(RAMP)
    if orientation > 1:
        stored = stored.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(kind, {})
    found = saved(tmp_path / f"a.{kind}", stored, exif=exif, **options)
    assert found.shape == RAMP.shape
    assert np.abs(found.astype(int) - RAMP).max() <= (4 if kind == "jpg" else 0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_header_says_the_upright_size(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = images._encode(Image.fromarray(RAMP), kind, exif=exif)
    assert images.image_size(data) == images.decode_image(data).shape[:2]


def test_alpha_lies_over_white(tmp_path):
    alpha = np.zeros((30, 40, 1), np.uint8)
    alpha[:, 20:30], alpha[:, 30:] = 128, 255
    found = saved(tmp_path / "rgba.png", Image.fromarray(np.concatenate([RAMP, alpha], -1)))
    np.testing.assert_array_equal(found[:, :20], 255)
    np.testing.assert_array_equal(found[:, 30:], RAMP[:, 30:])
    assert np.abs(found[:, 20:30].astype(int) - (255 + RAMP[:, 20:30].astype(int)) // 2).max() <= 2
    grey = saved(tmp_path / "la.png", Image.fromarray(np.concatenate([RAMP[..., :1], alpha], -1), "LA"))
    np.testing.assert_array_equal(grey[:, :20], 255)
    keyed = Image.fromarray(RAMP)
    keyed.putpixel((0, 0), (1, 2, 3))
    assert (saved(tmp_path / "trns.png", keyed, transparency=(1, 2, 3))[0, 0] == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.putpixel((0, 0), 0)
    found = saved(tmp_path / "p.png", palette, transparency=0)
    assert found[0, 0].tolist() == [255, 255, 255] and found[1, 1].tolist() == [200, 10, 10]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    source = Image.fromarray(RAMP).convert(mode)
    found = saved(tmp_path / ("a.png" if mode in ("L", "1", "P") else "a.jpg"), source)
    expected = np.asarray(source.convert("RGB"))
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < 4


def test_16_bit_and_float_fill_the_same_range(tmp_path):
    ramp = RAMP[..., 0]
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    for name in ("deep.png", "deep.tiff"):
        np.testing.assert_array_equal(saved(tmp_path / name, deep)[..., 1], ramp)
    unit = Image.fromarray(ramp.astype(np.float32) / 255)
    assert np.abs(saved(tmp_path / "unit.tiff", unit)[..., 1].astype(int) - ramp).max() <= 1
    broken = ramp.astype(np.float32) / 255
    broken[0, 0], broken[1, 1] = np.nan, np.inf
    assert (
        np.abs(saved(tmp_path / "nan.tiff", Image.fromarray(broken))[2:, :, 1].astype(int) - ramp[2:]).max()
        <= 1
    )
    (tmp_path / "rgb16.png").write_bytes(png(5, 4, colour=2, depth=16))
    assert (load_image(tmp_path / "rgb16.png") == 0).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])[0, 0].tolist() == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (3, 5000), (2, 3)])
def test_extreme_shapes_become_squares(tmp_path, shape):
    found = saved(tmp_path / "a.png", Image.fromarray(np.full((*shape, 3), 7, np.uint8)))
    for fill, ground in (("edge", 7), ("white", 255)):
        boxed = square(found, 64, fill)
        assert boxed.shape == (64, 64, 3) and (boxed == 7).any()
        assert boxed[0, 0, 0] == (7 if shape[0] == shape[1] else ground)


def test_large_pictures_are_reduced(tmp_path):
    large = Image.fromarray(RAMP).resize((5000, 3750))
    for name in ("a.jpg", "a.png"):
        found = saved(tmp_path / name, large)
        assert found.shape == (1536, 2048, 3)
        assert np.abs(resize(found, (30, 40)).astype(int) - RAMP).max() < 8


def test_memory_stays_below_a_gigabyte(tmp_path):
    """The largest legal picture of the worst mode."""
    (tmp_path / "a.png").write_bytes(png(9400, 9400))
    # VmHWM, not ru_maxrss: a child's ru_maxrss starts at its parent's, and pytest may be large by now.
    script = (
        "import sys; from ragdiff_jax.data.images import load_image; load_image(sys.argv[1]);"
        "peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0];"
        "print(int(peak.split()[1]) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.png"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000
    assert not done.stderr


# MARK: what is refused


def bomb(path):
    path.write_bytes(png(60_000, 60_000, rows=3))


def nearly_a_bomb(path):
    path.write_bytes(png(10_000, 10_000, rows=3))


def cut_jpeg(path):
    path.write_bytes(encode_jpeg(np.tile(RAMP, (4, 4, 1)))[:900])


def cut_png(path):
    path.write_bytes(encode_png(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8))[:3000])


def text(path):
    path.write_text("not a picture at all")


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.mkdir()


def missing(path):
    pass


def foreign(path):
    Image.fromarray(RAMP).save(path.with_suffix(".ppm"))
    path.with_suffix(".ppm").rename(path)


def bad_sum(path):
    data = bytearray(encode_png(RAMP))
    data[60] ^= 0xFF
    path.write_bytes(data)


def pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bomb, "pixels"),
        (nearly_a_bomb, "pixels"),
        (cut_jpeg, "damaged"),
        (cut_png, "damaged"),
        (text, "not a picture"),
        (empty, "empty"),
        (folder, "folder"),
        (missing, "no such file"),
        (foreign, "known format"),
        (bad_sum, "damaged"),
        (pipe, "not a regular file"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_hostile_files_get_one_line(tmp_path, make, words):
    path = tmp_path / "input.jpg"
    make(path)
    with pytest.raises(UserError, match=words) as error:
        load_image(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and "; " in message  # the file, the fix


def test_unreadable_file_and_odd_names(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(RAMP))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match="a.png: cannot be read .Permission denied"):
        load_image(path)
    with pytest.raises(UserError, match=r"two\\nlines") as error:
        load_image(tmp_path / "two\nlines.png")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be opened"):
        load_image("nul\0byte.png")
    with pytest.raises(UserError, match="cannot be opened"):
        load_image("long" * 2000)


@pytest.mark.filterwarnings("error")
def test_random_damage_never_escapes():
    """Any flipped bytes: a picture or a UserError."""
    random = np.random.default_rng(0)
    sources = [encode_png(RAMP), encode_jpeg(RAMP)]
    for kind in ("WEBP", "AVIF", "GIF", "TIFF", "BMP"):
        sources.append(images._encode(Image.fromarray(RAMP), kind))
    survived = 0
    for _ in range(50):
        for source in sources:
            data = np.frombuffer(source, np.uint8).copy()
            data[random.integers(0, min(len(data), 400), 3)] = random.integers(0, 256, 3)
            try:
                survived += decode_image(data.tobytes(), max_pixels=10**6).ndim == 3
            except UserError as error:
                assert "\n" not in str(error)
    assert survived > 20


# MARK: the small operations


def test_square_keeps_proportion_and_place():
    picture = np.full((50, 100, 3), 40, np.uint8)
    boxed = square(picture, 64)
    assert (boxed[16:48] == 40).all() and (boxed[:16] == 255).all() and (boxed[48:] == 255).all()
    silhouette = square_mask(np.ones((50, 100), bool), 64)
    np.testing.assert_array_equal(silhouette, boxed[..., 0] == 40)
    assert (pad_to_square(picture).shape, pad_to_square(RAMP, "edge")[0, 0].tolist()) == (
        (100, 100, 3),
        [0, 0, 90],
    )


def test_resize_is_antialiased():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize(np.repeat(board[..., None], 3, -1).astype(np.uint8), 8)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_mask_round_trip_and_foreign_masks():
    mask = RAMP[..., 0] > 100
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)
    with Image.open(io.BytesIO(encode_mask(mask))) as stored:
        assert stored.mode == "1"
    np.testing.assert_array_equal(
        decode_mask(encode_png(np.repeat(mask[..., None] * np.uint8(255), 3, -1))), mask
    )


def test_masks_of_other_hands():
    garment = np.zeros((20, 16), bool)
    garment[4:12, 3:9] = True

    def saved(array, mode=None):
        buffer = io.BytesIO()
        Image.fromarray(array, mode).save(buffer, "PNG")
        return buffer.getvalue()

    ones = garment.astype(np.uint8)  # as imsave writes a mask of 0 and 1
    layers = {white: np.dstack([np.full((20, 16, 3), white, np.uint8), 255 * ones]) for white in (255, 0)}
    for data in (saved(ones), saved(layers[255]), saved(layers[0]), saved(np.repeat(ones[..., None], 3, -1))):
        np.testing.assert_array_equal(decode_mask(data), garment)
    assert not decode_mask(saved(0 * ones)).any()


def icc_profile(primaries):
    """A display's profile, version 2: its primaries in XYZ (D50) and a gamma of 2.2."""

    def xyz(x, y, z):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * value)) for value in (x, y, z))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 0x0233) + b"\0\0"
    text = b"wide\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78) + bytes(3)
    tags = {b"desc": described, b"wtpt": xyz(0.9642, 1, 0.8249)}
    tags |= {name + b"XYZ": xyz(*primary) for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    start, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = b"\0\0\0\0" + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += xyz(0.9642, 1, 0.8249)[8:] + bytes(48)
    return struct.pack(">I", start + len(body)) + head + struct.pack(">I", len(tags)) + table + body


def test_colours_of_another_profile_become_srgb(tmp_path):
    display_p3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
    stored = np.full((6, 5, 3), (234, 51, 35), np.uint8)  # Display P3 for sRGB's red
    for mode in ("RGB", "RGBA"):
        Image.fromarray(stored).convert(mode).save(tmp_path / "wide.png", icc_profile=icc_profile(display_p3))
        np.testing.assert_allclose(load_image(tmp_path / "wide.png")[3, 3], (255, 0, 0), atol=8)
    for profile in (b"no profile", icc_profile(display_p3)[:200]):
        Image.fromarray(stored).save(tmp_path / "bad.png", icc_profile=profile)
        np.testing.assert_array_equal(load_image(tmp_path / "bad.png"), stored)


def test_save_is_whole_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.png"
    save_image(path, RAMP)
    np.testing.assert_array_equal(load_image(path), RAMP)
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UserError, match="a.png: cannot be written .No space left"):
        save_image(path, RAMP[::-1].copy())
    monkeypatch.undo()
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(load_image(path), RAMP)
    with pytest.raises(UserError, match="cannot be written"):
        save_image(path / "below-a-file.png", RAMP)
    with pytest.raises(UserError, match=".xyz"):
        save_image(tmp_path / "a.xyz", RAMP)
    longest = tmp_path / f"{'袖' * 83}.png"  # 253 bytes
    save_image(longest, RAMP)
    assert longest.is_file()
