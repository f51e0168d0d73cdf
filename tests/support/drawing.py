"""Pictures drawn in code from a seed, and encoded in every format, mode and orientation that the decoder knows.

`every_file` is the catalogue.
"""

import io
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from encoders import Array, bmp, exif_block, gif, png, pnm, tiff
from PIL import Image

__all__ = [
    "FORMATS",
    "NAMES",
    "bmp",
    "draw",
    "draw16",
    "every_file",
    "exif_block",
    "gif",
    "jpeg",
    "palette_bytes",
    "png",
    "pnm",
    "save",
    "segments",
    "tiff",
    "ycck",
]


def draw(seed: int, width: int = 67, height: int = 45, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Return a uint8 picture (height, width, channels), or (height, width) for one channel: waves, boxes and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(channels):
        fx, fy, phase = rng.uniform(-9, 9, 3)
        plane = 127 + 90 * np.sin(fx * x / max(width, 8) + fy * y / max(height, 8) + phase)
        for _ in range(4):
            left, right = sorted(rng.integers(0, width + 1, 2))
            top, bottom = sorted(rng.integers(0, height + 1, 2))
            plane[top:bottom, left:right] += rng.uniform(-90, 90)
        planes.append(plane + rng.normal(0, 5, plane.shape))
    pixels = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def draw16(seed: int, width: int = 67, height: int = 45, channels: int = 3) -> npt.NDArray[np.uint16]:
    """Return the like of `draw` in uint16, its low bytes as busy as its high ones."""
    high = draw(seed, width, height, channels).astype(np.uint16)
    return (high << 8) | np.random.default_rng(seed + 1).integers(0, 256, high.shape, np.uint16)


def save(image: Image.Image, format_: str, **options: Any) -> bytes:
    """Return `image` as Pillow encodes it."""
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def jpeg(
    pixels: Array, orientation: int | None = None, order: str = "<", mode: str | None = None, **options: Any
) -> bytes:
    """Return a JPEG. `mode` "CMYK" takes four channels."""
    image = Image.fromarray(pixels) if mode is None else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    if orientation is not None:
        options["exif"] = b"Exif\0\0" + exif_block(orientation, order)
    return save(image, "JPEG", **{"quality": 90, **options})


def segments(data: bytes) -> list[tuple[int, int]]:
    """Return (marker, offset) of the segments of a JPEG up to its first scan."""
    found, at = [], 2
    while True:
        found.append((data[at + 1], at))
        if data[at + 1] == 0xDA:
            return found
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def ycck(data: bytes) -> bytes:
    """Return the CMYK JPEG `data` with its Adobe segment saying YCCK."""
    at = next(at for marker, at in segments(data) if marker == 0xEE)
    return data[: at + 15] + b"\2" + data[at + 16 :]


def palette_bytes(seed: int, n: int, channels: int = 3) -> bytes:
    """Return `n` colours."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels), np.uint8).tobytes()


def every_file(seed: int = 0, width: int = 67, height: int = 45, kind: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (name, file) for every class of file whose name begins with `kind`; names are ``format/what``."""
    for number, (name, make) in enumerate(_CASES):
        if name.startswith(kind):
            yield name, make(seed + number, width, height)


def _rgb(s: int, w: int, h: int) -> Image.Image:
    return Image.fromarray(draw(s, w, h))


def _rgba(s: int, w: int, h: int) -> Image.Image:
    return Image.fromarray(draw(s, w, h, 4))


def _grey(s: int, w: int, h: int) -> Image.Image:
    return Image.fromarray(draw(s, w, h, 1))


def _indices(s: int, w: int, h: int, n: int) -> Array:
    return draw(s, w, h, 1).astype(np.uint16) * n // 256


def _tiff_palette(s: int, n: int) -> list[int]:
    return [int(v) for v in np.random.default_rng(s).integers(0, 65536, 3 * n)]


def _jpeg_cases() -> Iterator[tuple[str, Any]]:
    for name, options in {
        "4:2:0": {"subsampling": 2},
        "4:2:2": {"subsampling": 1},
        "4:4:4": {"subsampling": 0},
        "4:1:1": {"subsampling": "4:1:1"},
        "progressive": {"progressive": True},
        "progressive 4:4:4": {"progressive": True, "subsampling": 0},
        "optimised": {"optimize": True},
        "restart": {"restart_marker_blocks": 2},
        "quality 5": {"quality": 5},
        "quality 100": {"quality": 100, "subsampling": 0},
        "kept RGB": {"keep_rgb": True, "subsampling": 0},
    }.items():
        yield f"JPEG/RGB {name}", lambda s, w, h, o=options: jpeg(draw(s, w, h), **o)
    yield "JPEG/L", lambda s, w, h: jpeg(draw(s, w, h, 1))
    yield "JPEG/L progressive", lambda s, w, h: jpeg(draw(s, w, h, 1), progressive=True)
    yield "JPEG/CMYK", lambda s, w, h: jpeg(draw(s, w, h, 4), mode="CMYK")
    yield "JPEG/CMYK 4:2:0", lambda s, w, h: jpeg(draw(s, w, h, 4), mode="CMYK", subsampling=2)
    yield "JPEG/YCCK", lambda s, w, h: ycck(jpeg(draw(s, w, h, 4), mode="CMYK"))
    for value in range(1, 9):
        yield f"JPEG/orientation {value}", lambda s, w, h, v=value: jpeg(draw(s, w, h), v)
    yield "JPEG/orientation 6 big endian", lambda s, w, h: jpeg(draw(s, w, h), 6, ">")
    yield "JPEG/orientation 8 L", lambda s, w, h: jpeg(draw(s, w, h, 1), 8)
    yield "JPEG/orientation 5 CMYK", lambda s, w, h: jpeg(draw(s, w, h, 4), 5, mode="CMYK")
    for value in (0, 9, 300):
        yield f"JPEG/orientation {value}", lambda s, w, h, v=value: jpeg(draw(s, w, h), v)
    yield (
        "MPO/two pictures",
        lambda s, w, h: save(_rgb(s, w, h), "MPO", save_all=True, append_images=[_rgb(s + 1, w, h)]),
    )
    yield (
        "MPO/orientation 6",
        lambda s, w, h: save(
            _rgb(s, w, h),
            "MPO",
            save_all=True,
            append_images=[_rgb(s + 1, w, h)],
            exif=b"Exif\0\0" + exif_block(6),
        ),
    )


def _png_cases() -> Iterator[tuple[str, Any]]:
    for interlaced in (False, True):
        tail = " interlaced" if interlaced else ""
        for bits in (1, 2, 4, 8):
            yield (
                f"PNG/L {bits} bits{tail}",
                lambda s, w, h, b=bits, i=interlaced: png(_indices(s, w, h, 1 << b), b, interlaced=i),
            )
            yield (
                f"PNG/P {bits} bits{tail}",
                lambda s, w, h, b=bits, i=interlaced: png(
                    _indices(s, w, h, 1 << b), b, palette_bytes(s, 1 << b), interlaced=i
                ),
            )
        for channels, name in ((2, "LA"), (3, "RGB"), (4, "RGBA")):
            yield (
                f"PNG/{name}{tail}",
                lambda s, w, h, c=channels, i=interlaced: png(draw(s, w, h, c), interlaced=i),
            )
        for channels, name in ((1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")):
            yield (
                f"PNG/{name} 16 bits{tail}",
                lambda s, w, h, c=channels, i=interlaced: png(draw16(s, w, h, c), 16, interlaced=i),
            )
    yield (
        "PNG/P with transparency",
        lambda s, w, h: png(_indices(s, w, h, 256), 8, palette_bytes(s, 256), bytes(range(256))),
    )
    yield (
        "PNG/P with one transparent colour",
        lambda s, w, h: png(_indices(s, w, h, 16), 4, palette_bytes(s, 16), b"\xff\xff\0"),
    )
    yield "PNG/L with transparency", lambda s, w, h: png(draw(s, w, h, 1), 8, transparency=b"\0\x80")
    yield "PNG/L 1 bit with transparency", lambda s, w, h: png(_indices(s, w, h, 2), 1, transparency=b"\0\0")
    yield "PNG/L 16 bits with transparency", lambda s, w, h: png(draw16(s, w, h, 1), 16, transparency=b"\x80\x80")
    yield "PNG/RGB with transparency", lambda s, w, h: png(draw(s, w, h), 8, transparency=b"\0\x80\0\x80\0\x80")
    yield "PNG/RGB 16 bits with transparency", lambda s, w, h: png(draw16(s, w, h), 16, transparency=b"\x80" * 6)
    for value in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        yield f"PNG/orientation {value}", lambda s, w, h, v=value: png(draw(s, w, h), orientation=v)
    yield (
        "PNG/gamma and chromaticities",
        lambda s, w, h: png(draw(s, w, h), chunks=[(b"gAMA", struct.pack(">I", 100000))]),
    )
    yield "PNG/gamma L", lambda s, w, h: png(draw(s, w, h, 1), chunks=[(b"gAMA", struct.pack(">I", 100000))])
    yield "PNG/background", lambda s, w, h: png(draw(s, w, h, 4), chunks=[(b"bKGD", b"\0\1\0\2\0\3")])
    yield (
        "PNG/significant bits",
        lambda s, w, h: png(draw(s, w, h), chunks=[(b"sBIT", b"\5\6\5")]),
    )
    yield (
        "PNG/animated",
        lambda s, w, h: save(_rgba(s, w, h), "PNG", save_all=True, append_images=[_rgba(s + 1, w, h)]),
    )
    yield (
        "PNG/animated with default image",
        lambda s, w, h: save(
            _rgb(s, w, h), "PNG", save_all=True, default_image=True, append_images=[_rgb(s + 1, w, h)]
        ),
    )


def _tiff_cases() -> Iterator[tuple[str, Any]]:
    for order, tail in (("<", ""), (">", " big endian")):
        yield f"TIFF/1{tail}", lambda s, w, h, o=order: tiff(_indices(s, w, h, 2).astype(np.uint8), 1, order=o)
        yield f"TIFF/L{tail}", lambda s, w, h, o=order: tiff(draw(s, w, h, 1), order=o)
        yield f"TIFF/RGB{tail}", lambda s, w, h, o=order: tiff(draw(s, w, h), photometric=2, order=o)
        yield f"TIFF/I;16{tail}", lambda s, w, h, o=order: tiff(draw16(s, w, h, 1), order=o)
        yield f"TIFF/RGB 16 bits{tail}", lambda s, w, h, o=order: tiff(draw16(s, w, h), photometric=2, order=o)
        yield (
            f"TIFF/F{tail}",
            lambda s, w, h, o=order: tiff(draw(s, w, h, 1).astype(np.float32) + np.float32(0.37), order=o),
        )
        yield f"TIFF/I{tail}", lambda s, w, h, o=order: tiff(draw(s, w, h, 1).astype(np.int32), order=o)
    yield "TIFF/1 white is zero", lambda s, w, h: tiff(_indices(s, w, h, 2).astype(np.uint8), 1, photometric=0)
    yield "TIFF/L white is zero", lambda s, w, h: tiff(draw(s, w, h, 1), photometric=0)
    yield "TIFF/L 2 bits", lambda s, w, h: tiff(_indices(s, w, h, 4).astype(np.uint8), 2)
    yield "TIFF/L 4 bits", lambda s, w, h: tiff(_indices(s, w, h, 16).astype(np.uint8), 4)
    yield "TIFF/I;16 white is zero", lambda s, w, h: tiff(draw16(s, w, h, 1), photometric=0)
    yield "TIFF/LA", lambda s, w, h: tiff(draw(s, w, h, 2), extra=2)
    yield "TIFF/RGBA", lambda s, w, h: tiff(draw(s, w, h, 4), photometric=2, extra=2)
    yield "TIFF/RGBA premultiplied", lambda s, w, h: tiff(draw(s, w, h, 4), photometric=2, extra=1)
    yield "TIFF/RGBX", lambda s, w, h: tiff(draw(s, w, h, 4), photometric=2, extra=0)
    yield "TIFF/RGBA 16 bits", lambda s, w, h: tiff(draw16(s, w, h, 4), photometric=2, extra=2)
    yield (
        "TIFF/P",
        lambda s, w, h: tiff(_indices(s, w, h, 256).astype(np.uint8), photometric=3, palette=_tiff_palette(s, 256)),
    )
    yield (
        "TIFF/P 4 bits",
        lambda s, w, h: tiff(_indices(s, w, h, 16).astype(np.uint8), 4, photometric=3, palette=_tiff_palette(s, 16)),
    )
    yield "TIFF/CMYK", lambda s, w, h: tiff(draw(s, w, h, 4), photometric=5)
    yield "TIFF/CMYK 16 bits", lambda s, w, h: tiff(draw16(s, w, h, 4), photometric=5)
    yield "TIFF/YCbCr", lambda s, w, h: tiff(draw(s, w, h), photometric=6, tags=[(530, 3, [1, 1])])
    yield "TIFF/LAB", lambda s, w, h: tiff(draw(s, w, h), photometric=8)
    yield "TIFF/I negative", lambda s, w, h: tiff(draw(s, w, h, 1).astype(np.int32) * 5000 - 600_000)
    yield "TIFF/I;16S", lambda s, w, h: tiff(draw16(s, w, h, 1).view(np.int16))
    yield "TIFF/I;32 unsigned", lambda s, w, h: tiff(draw(s, w, h, 1).astype(np.uint32) * 16_000_000)
    yield "TIFF/F 0 to 1", lambda s, w, h: tiff(draw(s, w, h, 1).astype(np.float32) / 255)
    yield "TIFF/F wide", lambda s, w, h: tiff(draw(s, w, h, 1).astype(np.float32) * 4 - 300)
    yield "TIFF/RGB float", lambda s, w, h: tiff(draw(s, w, h).astype(np.float32), photometric=2)
    yield "TIFF/RGB tiled", lambda s, w, h: tiff(draw(s, w, h), photometric=2, tile=32)
    yield "TIFF/L tiled", lambda s, w, h: tiff(draw(s, w, h, 1), tile=16)
    yield "TIFF/RGB planar", lambda s, w, h: tiff(draw(s, w, h), photometric=2, planar=True)
    yield "TIFF/RGB deflate", lambda s, w, h: tiff(draw(s, w, h), photometric=2, deflate=True)
    yield "TIFF/L deflate tiled", lambda s, w, h: tiff(draw(s, w, h, 1), deflate=True, tile=32)
    yield "TIFF/I;16 deflate", lambda s, w, h: tiff(draw16(s, w, h, 1), deflate=True)
    yield "TIFF/RGB 16 bits deflate", lambda s, w, h: tiff(draw16(s, w, h), photometric=2, deflate=True)
    yield "TIFF/RGB BigTIFF", lambda s, w, h: tiff(draw(s, w, h), photometric=2, big=True)
    yield "TIFF/RGB pages", lambda s, w, h: tiff(draw(s, w, h), photometric=2, pages=3)
    for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"):
        yield f"TIFF/RGB {compression}", lambda s, w, h, c=compression: save(_rgb(s, w, h), "TIFF", compression=c)
    yield "TIFF/L jpeg", lambda s, w, h: save(_grey(s, w, h), "TIFF", compression="jpeg")
    yield "TIFF/CMYK jpeg", lambda s, w, h: save(_rgb(s, w, h).convert("CMYK"), "TIFF", compression="jpeg")
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield (
            f"TIFF/1 {compression}",
            lambda s, w, h, c=compression: save(_grey(s, w, h).convert("1"), "TIFF", compression=c),
        )
    for value in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        yield f"TIFF/orientation {value}", lambda s, w, h, v=value: tiff(draw(s, w, h), photometric=2, orientation=v)
    yield "TIFF/orientation 6 L", lambda s, w, h: tiff(draw(s, w, h, 1), orientation=6)
    yield "TIFF/orientation 8 I;16", lambda s, w, h: tiff(draw16(s, w, h, 1), orientation=8)
    yield "TIFF/orientation 3 deflate", lambda s, w, h: tiff(draw(s, w, h), photometric=2, orientation=3, deflate=True)


def _other_cases() -> Iterator[tuple[str, Any]]:
    yield "WEBP/RGB lossy", lambda s, w, h: save(_rgb(s, w, h), "WEBP", quality=80)
    yield "WEBP/RGBA lossy", lambda s, w, h: save(_rgba(s, w, h), "WEBP", quality=80)
    yield "WEBP/RGB lossless", lambda s, w, h: save(_rgb(s, w, h), "WEBP", lossless=True)
    yield "WEBP/RGBA lossless", lambda s, w, h: save(_rgba(s, w, h), "WEBP", lossless=True, exact=True)
    yield (
        "WEBP/animated",
        lambda s, w, h: save(
            _rgb(s, w, h), "WEBP", save_all=True, append_images=[_rgb(s + 1, w, h)], lossless=True, duration=50
        ),
    )
    yield (
        "WEBP/animated RGBA",
        lambda s, w, h: save(
            _rgba(s, w, h), "WEBP", save_all=True, append_images=[_rgba(s + 1, w, h)], lossless=True, duration=50
        ),
    )
    for value in range(1, 9):
        yield (
            f"WEBP/orientation {value}",
            lambda s, w, h, v=value: save(_rgb(s, w, h), "WEBP", lossless=True, exif=b"Exif\0\0" + exif_block(v)),
        )
    yield "AVIF/RGB", lambda s, w, h: save(_rgb(s, w, h), "AVIF", speed=10)
    yield "AVIF/RGB 4:4:4", lambda s, w, h: save(_rgb(s, w, h), "AVIF", speed=10, subsampling="4:4:4")
    yield "AVIF/RGBA", lambda s, w, h: save(_rgba(s, w, h), "AVIF", speed=10)
    yield "AVIF/L", lambda s, w, h: save(_grey(s, w, h), "AVIF", speed=10)
    yield (
        "AVIF/animated",
        lambda s, w, h: save(_rgb(s, w, h), "AVIF", save_all=True, append_images=[_rgb(s + 1, w, h)], speed=10),
    )
    for value in range(1, 9):
        yield (
            f"AVIF/orientation {value}",
            lambda s, w, h, v=value: save(_rgb(s, w, h), "AVIF", speed=10, exif=b"Exif\0\0" + exif_block(v)),
        )
    yield "JPEG2000/L", lambda s, w, h: save(_grey(s, w, h), "JPEG2000")
    yield "JPEG2000/LA", lambda s, w, h: save(_rgba(s, w, h).convert("LA"), "JPEG2000")
    yield "JPEG2000/RGB", lambda s, w, h: save(_rgb(s, w, h), "JPEG2000")
    yield (
        "JPEG2000/RGB lossy",
        lambda s, w, h: save(_rgb(s, w, h), "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[10]),
    )
    yield "JPEG2000/RGBA", lambda s, w, h: save(_rgba(s, w, h), "JPEG2000")
    yield "JPEG2000/I;16", lambda s, w, h: save(Image.fromarray(draw16(s, w, h, 1)), "JPEG2000")
    yield "JPEG2000/codestream", lambda s, w, h: save(_rgb(s, w, h), "JPEG2000", no_jp2=True)
    yield "BMP/1 bit", lambda s, w, h: bmp(_indices(s, w, h, 2), 1, palette_bytes(s, 2, 4))
    yield "BMP/4 bits", lambda s, w, h: bmp(_indices(s, w, h, 16), 4, palette_bytes(s, 16, 4))
    yield "BMP/8 bits", lambda s, w, h: bmp(_indices(s, w, h, 256), 8, palette_bytes(s, 256, 4))
    yield "BMP/8 bits grey", lambda s, w, h: save(_grey(s, w, h), "BMP")
    yield "BMP/16 bits 555", lambda s, w, h: bmp(draw16(s, w, h, 1) & 0x7FFF, 16)
    yield "BMP/16 bits 565", lambda s, w, h: bmp(draw16(s, w, h, 1), 16, masks=(0xF800, 0x7E0, 0x1F))
    yield "BMP/24 bits", lambda s, w, h: bmp(draw(s, w, h), 24)
    yield "BMP/24 bits top down", lambda s, w, h: bmp(draw(s, w, h), 24, top_down=True)
    yield "BMP/32 bits", lambda s, w, h: bmp(draw(s, w, h, 4), 32)
    yield "BMP/32 bits masks", lambda s, w, h: bmp(draw(s, w, h, 4), 32, masks=(0xFF0000, 0xFF00, 0xFF))
    yield "PNM/P1", lambda s, w, h: pnm(_indices(s, w, h, 2), 1)
    yield "PNM/P2", lambda s, w, h: pnm(draw(s, w, h, 1), 2)
    yield "PNM/P3", lambda s, w, h: pnm(draw(s, w, h), 3)
    yield "PNM/P4", lambda s, w, h: pnm(_indices(s, w, h, 2), 4)
    yield "PNM/P5", lambda s, w, h: pnm(draw(s, w, h, 1), 5)
    yield "PNM/P6", lambda s, w, h: pnm(draw(s, w, h), 6)
    yield "PNM/P5 16 bits", lambda s, w, h: pnm(draw16(s, w, h, 1), 5, 65535)
    yield "PNM/P6 16 bits", lambda s, w, h: pnm(draw16(s, w, h), 6, 65535)
    yield "PNM/P5 to 100", lambda s, w, h: pnm(_indices(s, w, h, 101), 5, 100)
    yield "PNM/P6 to 100", lambda s, w, h: pnm(draw(s, w, h).astype(np.uint16) * 101 // 256, 6, 100)
    yield from _gif_cases()


def _gif_cases() -> Iterator[tuple[str, Any]]:
    def one(s: int, w: int, h: int, **options: Any) -> bytes:
        return gif([(_indices(s, w, h, 128), 0, 0)], (w, h), palette_bytes(s, 128), **options)

    def offset(s: int, w: int, h: int, **options: Any) -> bytes:
        frames = [(_indices(s, w - w // 2, h - h // 2, 128), w // 3, h // 3), (_indices(s + 1, w, h, 128), 0, 0)]
        return gif(frames, (w, h), palette_bytes(s, 128), **options)

    yield "GIF/plain", one
    yield "GIF/interlaced", lambda s, w, h: one(s, w, h, interlaced=True)
    yield "GIF/local palette", lambda s, w, h: one(s, w, h, local_palette=palette_bytes(s + 5, 128))
    yield "GIF/transparent", lambda s, w, h: one(s, w, h, transparent=60)
    yield "GIF/transparent, background 7", lambda s, w, h: one(s, w, h, transparent=60, background=7)
    yield "GIF/small frame", offset
    yield "GIF/small frame, background 7", lambda s, w, h: offset(s, w, h, background=7)
    yield "GIF/small frame, transparent", lambda s, w, h: offset(s, w, h, transparent=60)
    yield "GIF/small frame, transparent, background 7", lambda s, w, h: offset(s, w, h, transparent=60, background=7)
    ramp = bytes(value for value in range(128) for _ in range(3))
    yield "GIF/grey palette", lambda s, w, h: gif([(_indices(s, w, h, 128), 0, 0)], (w, h), ramp, background=99)
    yield (
        "GIF/grey palette, small frame of another",
        lambda s, w, h: gif(
            [(_indices(s, w - w // 5, h - h // 5, 128), w // 9, h // 9)], (w, h), ramp, 99, 60, palette_bytes(s, 128)
        ),
    )
    yield "GIF/animated", lambda s, w, h: save(_rgb(s, w, h), "GIF", save_all=True, append_images=[_rgb(s + 1, w, h)])
    yield "GIF/RGBA", lambda s, w, h: save(_rgba(s, w, h), "GIF")


_CASES: list[tuple[str, Callable[[int, int, int], bytes]]] = [
    *_jpeg_cases(),
    *_png_cases(),
    *_tiff_cases(),
    *_other_cases(),
]
NAMES = [name for name, _ in _CASES]
FORMATS = sorted({name.split("/")[0] for name in NAMES})
