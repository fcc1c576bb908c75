"""Small image files of every format and kind, and what Pillow shows of them."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

WHITE = (255, 255, 255)
# JPEG and lossy WebP decoders differ by rounding; turning an image moves the rounding of colors.
ROUNDING = 12


def picture(side=64):
    """Returns an image without symmetry, (side, side, 3) uint8."""
    y, x = np.mgrid[0:side, 0:side] * 4 % 256
    image = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    image[: side // 3, : side // 2] = (200, 30, 20)
    return image


def pillow_rgb(data, background=WHITE, orientation=True):
    """Decodes a file with Pillow: upright, and on a background."""
    image = Image.open(io.BytesIO(data))
    if orientation:
        image = ImageOps.exif_transpose(image)
    if background is not None and (image.has_transparency_data or image.mode == "RGBA"):
        canvas = Image.new("RGBA", image.size, (*background, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    if image.mode == "I;16":
        # Pillow clips these instead of scaling them.
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return np.stack([high] * 3, axis=-1)
    if background is None and image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def saved(image, kind, **options):
    """Returns the bytes of a file that Pillow wrote."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation, order="<"):
    """Returns EXIF data of other entries and the orientation."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHI4s", 0x010F, 2, 3, b"ab\0\0")
    entries += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return start + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def segment(marker, content):
    """Returns a segment of a JPEG file."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def turned_jpeg(orientation, order="<", before=b"", image=None):
    """Returns a JPEG file with an orientation, behind other segments."""
    plain = saved(Image.fromarray(picture() if image is None else image), "JPEG", quality=95)
    return plain[:2] + before + segment(0xE1, b"Exif\0\0" + exif(orientation, order)) + plain[2:]


def cmyk_jpeg(transform=0):
    """Returns a JPEG file of four colors; without Adobe's marker if `transform` is None."""
    data = saved(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    marker = segment(0xEE, b"Adobe\0\x64" + bytes(5))
    assert marker in data
    new = b"" if transform is None else marker[:-1] + bytes([transform])
    return data.replace(marker, new, 1)


def bmp(bits, pixels, *, compression=0, palette=b"", masks=b"", side=64, top_down=False, size=40):
    """Returns a BMP file."""
    info = struct.pack(
        "<IiiHHIIiiII", size, side, -side if top_down else side, 1, bits, compression,
        len(pixels), 0, 0, len(palette) // 4, 0,
    )  # fmt: skip
    before = info + masks + palette
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(before)) + before + pixels


def run_lengths(indices, bits):
    """Encodes rows of indices: runs, literals, and skipped zeros."""
    data = b""
    for row in indices.tolist()[::-1]:
        x = 0
        while x < len(row):
            run = 1
            while x + run < len(row) and row[x + run] == row[x] and run < 200:
                run += 1
            if row[x] == 0 and x + run < len(row):
                data += bytes([0, 2, run, 0])
            elif run > 2 or len(row) - x < 3:
                run = run if run > 2 else 1
                data += bytes([run, row[x] if bits == 8 else row[x] * 17])
            else:
                run = min(5, len(row) - x)
                literal = row[x : x + run]
                if bits == 4:
                    padded = [*literal, 0]
                    literal = [a * 16 + b for a, b in zip(padded[::2], padded[1::2], strict=False)]
                data += bytes([0, run, *literal]) + b"\0" * (len(literal) % 2)
            x += run
        data += b"\0\0"
    return data + b"\0\1"


def bmp_files():
    """Returns BMP files by kind."""
    rng = np.random.default_rng(0)
    bytes_of = lambda count: rng.integers(0, 256, count, np.uint8).tobytes()  # noqa: E731
    indices = picture()[..., 1] // 16
    table = lambda colors: bytes_of(4 * colors)  # noqa: E731
    deep = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return {
        "BMP, 1 bit": bmp(1, bytes_of(64 * 8), palette=table(2)),
        "BMP, 4 bits": bmp(4, bytes_of(64 * 32), palette=table(16)),
        "BMP, palette": bmp(8, bytes_of(64 * 64), palette=table(256)),
        "BMP, palette of few colors": bmp(8, indices.tobytes(), palette=table(16)),
        "BMP, RLE8": bmp(8, run_lengths(indices, 8), compression=1, palette=table(16)),
        "BMP, RLE4": bmp(4, run_lengths(indices, 4), compression=2, palette=table(16)),
        "BMP, 16 bits": bmp(16, bytes_of(64 * 128)),
        "BMP, 16 bits, 565": bmp(
            16, bytes_of(64 * 128), compression=3, masks=struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
        ),
        "BMP, 24 bits": bmp(24, bytes_of(64 * 192)),
        "BMP, 24 bits, top down": bmp(24, bytes_of(64 * 192), top_down=True),
        "BMP, 32 bits": bmp(32, bytes_of(64 * 256)),
        "BMP, 32 bits, opacity": bmp(32, bytes_of(64 * 256), compression=3, masks=deep, size=108),
    }


def transparent():
    """Returns an RGBA image with every opacity."""
    rgba = np.dstack([picture(), np.arange(64 * 64).reshape(64, 64) // 16 % 256])
    return Image.fromarray(rgba.astype(np.uint8))


def gif_with_small_frame():
    """Returns a GIF file whose picture covers a part of the image and has transparent pixels."""
    image = Image.fromarray(picture(48)).quantize(16)
    data = bytearray(saved(image, "GIF", transparency=image.getpixel((0, 0)), optimize=False))
    data[6:10] = struct.pack("<HH", 64, 64)
    place = data.index(b"," + struct.pack("<HHHH", 0, 0, 48, 48))
    data[place + 1 : place + 5] = struct.pack("<HH", 5, 9)
    return bytes(data)


def animation(kind, images, **options):
    """Returns an animated file."""
    return saved(images[0], kind, save_all=True, append_images=images[1:], duration=50, **options)


def image_formats():
    """Returns files by kind; those with "lossy" in their names differ by rounding."""
    rgb = Image.fromarray(picture())
    gray, palette = rgb.convert("L"), rgb.quantize(32)
    bitten = palette.copy()
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    others = [Image.fromarray(np.roll(picture(), 9 * i, axis=1)) for i in range(3)]
    clear = [transparent(), *others[1:]]
    comment, table = segment(0xFE, b"no Exif here"), segment(0xE2, b"x" * 40_000) * 2
    plain = saved(rgb, "JPEG", quality=95)
    return {
        "JPEG, lossy": plain,
        "JPEG, lossy, gray": saved(gray, "JPEG", quality=95),
        "JPEG, lossy, progressive": saved(rgb, "JPEG", quality=95, progressive=True),
        "JPEG, lossy, CMYK": cmyk_jpeg(),
        "JPEG, lossy, CMYK without Adobe's marker": cmyk_jpeg(None),
        "JPEG, lossy, YCCK": cmyk_jpeg(2),
        "JPEG, lossy, of several pictures": animation("MPO", others),
        **{f"JPEG, lossy, orientation {i}": turned_jpeg(i) for i in range(1, 9)},
        "JPEG, lossy, orientation of no meaning": turned_jpeg(9),
        "JPEG, lossy, big-endian EXIF": turned_jpeg(6, ">"),
        "JPEG, lossy, EXIF behind segments": turned_jpeg(8, before=comment + table),
        "JPEG, lossy, EXIF behind the tables": plain[:-2].replace(
            b"\xff\xda", segment(0xE1, b"Exif\0\0" + exif(3)) + b"\xff\xda", 1
        )
        + plain[-2:],
        "PNG": saved(rgb, "PNG"),
        "PNG, gray": saved(gray, "PNG"),
        "PNG, 1 bit": saved(gray.convert("1"), "PNG"),
        "PNG, 16 bits": saved(deep, "PNG"),
        "PNG, palette": saved(palette, "PNG"),
        "PNG, opacity": saved(transparent(), "PNG"),
        "PNG, gray and opacity": saved(transparent().convert("LA"), "PNG"),
        "PNG, transparent palette entry": saved(
            bitten, "PNG", transparency=bitten.getpixel((0, 0))
        ),
        "PNG, transparent gray": saved(gray, "PNG", transparency=gray.getpixel((0, 0))),
        "PNG, transparent color": saved(rgb, "PNG", transparency=rgb.getpixel((0, 0))),
        "PNG, orientation": saved(rgb, "PNG", exif=exif(6)),
        "PNG, animated": animation("PNG", others),
        "GIF": saved(palette, "GIF"),
        "GIF, interlaced": saved(palette, "GIF", interlace=1),
        "GIF, transparent": saved(palette, "GIF", transparency=palette.getpixel((0, 0))),
        "GIF, small picture": gif_with_small_frame(),
        "GIF, animated": animation("GIF", [one.quantize(32) for one in others]),
        **bmp_files(),
        "WebP, lossy": saved(rgb, "WEBP", quality=95),
        "WebP": saved(rgb, "WEBP", lossless=True),
        "WebP, lossy, opacity": saved(transparent(), "WEBP", quality=95, alpha_quality=100),
        "WebP, opacity": saved(transparent(), "WEBP", lossless=True, exact=True),
        "WebP, animated": animation("WEBP", others, lossless=True),
        "WebP, animated, opacity": animation("WEBP", clear, lossless=True, exact=True),
        "WebP, lossy, animated, opacity": animation("WEBP", clear, quality=95),
        "WebP, orientation": saved(rgb, "WEBP", lossless=True, exif=exif(5)),
    }


FORMATS = image_formats()
