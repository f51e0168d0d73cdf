"""What one image of ten megapixels takes: at most 24 bytes a pixel beside the file, and 3 s, in every format.

Each file is decoded and hashed in a process of its own, forked from one that has imported everything.
"""

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from encoders import gif, png
from PIL import Image
from tiff_writer import Spec, file_of, tags_of

WIDTH, HEIGHT = 4000, 2500
N_PIXELS = WIDTH * HEIGHT
MAX_BYTES_A_PIXEL = 24
MAX_SECONDS = 3 * 3  # of CPU time; the machine may be busy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory"),
]

_SERVER = """
import json, os, resource, sys, time
import numpy as np
from imgmatch_df.batch.image_hashes import hash_image
from imgmatch_df.hashes.kinds import BMH1, PHASH, empty_row
from imgmatch_df.options import Options
from imgmatch_df.threads import n_threads

def status(name):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(name))) * 1024

def hash_one(data, options):
    return hash_image(data, options, empty_row((BMH1, PHASH)))

def measure(path, alpha, n_threads):
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    with open(path, "rb") as file:
        data = file.read()
    open("/proc/self/clear_refs", "w").write("5")
    before, started = status("VmRSS"), time.process_time()
    if n_threads == 1:
        results = [hash_one(data, Options(alpha=alpha))]
    else:
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(n_threads) as threads:
            results = list(threads.map(hash_one, [data] * n_threads, [Options(alpha=alpha)] * n_threads))
    seconds = time.process_time() - started
    result = {"bytes": status("VmHWM") - before, "seconds": seconds, "all": status("VmHWM")}
    print(json.dumps({"results": [list(map(str, found)) for found in results], **result}), flush=True)

hash_one(b"P5 2 2 255 " + bytes(4), Options())
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            measure(*json.loads(line))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    print(flush=True)
"""


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    """A function that decodes a file in a process of its own and returns what that took."""
    path = tmp_path_factory.mktemp("files") / "image"
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def ask(data, alpha="drop", n_threads=1):
            path.write_bytes(data)
            server.stdin.write(json.dumps([str(path), alpha, n_threads]) + "\n")
            server.stdin.flush()
            found = server.stdout.readline()
            assert found.strip(), "the process was ended"
            server.stdout.readline()
            return json.loads(found)

        yield ask
        server.stdin.close()


def samples(channels, dtype=np.uint8, width=WIDTH, height=HEIGHT):
    """Return one row of samples, many times: encoders are fast then."""
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 1
    row = np.linspace(0, top, width * channels).astype(dtype).round(2)
    return np.broadcast_to(row.reshape(1, width, channels), (height, width, channels))


def image(mode, width=WIDTH, height=HEIGHT):
    channels = {"L": 1, "1": 1, "P": 1, "LA": 2, "RGB": 3}.get(mode, 4)
    return Image.frombytes(
        mode.replace("1", "L"), (width, height), samples(channels, np.uint8, width, height).tobytes()
    )


def save(pixels, name, **options):
    stream = io.BytesIO()
    pixels.save(stream, name, **options)
    return stream.getvalue()


def palette_png():
    pixels = image("P")
    pixels.putpalette(bytes(range(256)) * 3)
    return save(pixels, "PNG", compress_level=1, transparency=bytes(range(256)))


def tiff(dtype, channels, photometric=2, rows=HEIGHT, compression=8, **more):
    dtype = np.dtype(dtype)
    kind = {"f": 3, "i": 2}.get(dtype.kind)
    spec = Spec(photometric, dtype.itemsize * 8, channels, kind, rows=rows, compression=compression, **more)
    strip = samples(channels, dtype)[:rows].tobytes()
    strip = strip if compression == 1 else zlib.compress(strip, 1)
    return file_of(spec, [strip] * (HEIGHT // rows), tags_of(spec, WIDTH, HEIGHT))


def tiff_by_pillow(mode, compression):
    return save(image(mode), "TIFF", compression=compression, tiffinfo={278: HEIGHT})


def by_opencv(suffix, dtype, channels, *options):
    pixels = samples(channels, dtype) >> (4 if suffix == ".avif" else 0)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


ROWS_LZW = (cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_ROWSPERSTRIP, HEIGHT)
AVIF_12 = (cv2.IMWRITE_AVIF_DEPTH, 12, cv2.IMWRITE_AVIF_SPEED, 10)
FILES = {
    "JPEG": lambda: save(image("RGB"), "JPEG"),
    "JPEG progressive 4:4:4": lambda: save(image("RGB"), "JPEG", progressive=True, subsampling=0),
    "JPEG CMYK": lambda: save(image("CMYK"), "JPEG"),
    "JPEG CMYK progressive": lambda: save(image("CMYK"), "JPEG", progressive=True, subsampling=0),
    "JPEG CMYK 4:2:0, by Pillow": lambda: save(image("CMYK"), "JPEG", subsampling=2),
    "PNG RGBA": lambda: save(image("RGBA"), "PNG", compress_level=1),
    "PNG LA": lambda: save(image("LA"), "PNG", compress_level=1),
    "PNG 1 bit": lambda: save(image("1").convert("1"), "PNG", compress_level=1),
    "PNG palette": palette_png,
    "PNG RGBA 16 bits interlaced": lambda: png(samples(4, np.uint16), 16, interlaced=True),
    "PNG RGB 16 bits with a key": lambda: png(samples(3, np.uint16), 16, transparency=bytes(6)),
    "PNG grey 16 bits": lambda: png(samples(1, np.uint16), 16),
    "WebP lossless": lambda: save(image("RGBA"), "WEBP", lossless=True, method=0, quality=0),
    "WebP": lambda: save(image("RGBA"), "WEBP", method=0),
    "GIF": lambda: gif([(samples(1)[..., 0] // 2, 0, 0)], (WIDTH, HEIGHT), bytes(range(128)) * 3),
    "GIF of an empty canvas": lambda: gif([(np.zeros((4, 4), np.uint8), 0, 0)], (WIDTH, HEIGHT), bytes(range(128)) * 3),
    "BMP 24 bits": lambda: save(image("RGB"), "BMP"),
    "BMP 32 bits": lambda: save(image("RGBA"), "BMP"),
    "PPM": lambda: b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + samples(3).tobytes(),
    "PPM 16 bits": lambda: b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + samples(3, np.uint16).tobytes(),
    "PBM": lambda: b"P4 %d %d\n" % (WIDTH, HEIGHT) + bytes(WIDTH // 8 * HEIGHT),
    "AVIF 4:4:4": lambda: save(image("RGBA"), "AVIF", speed=10, subsampling="4:4:4"),
    "AVIF 12 bits": lambda: by_opencv(".avif", np.uint16, 3, *AVIF_12),
    "JPEG 2000": lambda: save(image("RGB"), "JPEG2000"),
    "JPEG 2000 RGBA": lambda: save(image("RGBA"), "JPEG2000"),
    "JPEG 2000 tiled": lambda: save(image("RGB"), "JPEG2000", tile_size=(512, 512)),
    "TIFF RGB": lambda: tiff(np.uint8, 3),
    "TIFF RGB 16 bits": lambda: tiff(np.uint16, 3),
    "TIFF RGB 16 bits in strips": lambda: tiff(np.uint16, 3, rows=50),
    "TIFF RGB 16 bits plain": lambda: tiff(np.uint16, 3, rows=50, compression=1),
    "TIFF RGBA 16 bits": lambda: tiff(np.uint16, 4, extra=(2,)),
    "TIFF RGB of 64-bit floats": lambda: tiff(np.float64, 3),
    "TIFF F": lambda: tiff(np.float32, 1, 1, rows=50),
    "TIFF I": lambda: tiff(np.int32, 1, 1, rows=50),
    "TIFF CMYK": lambda: tiff(np.uint8, 4, 5),
    "TIFF CIE L*a*b*": lambda: tiff(np.uint8, 3, 8, rows=50),
    "TIFF RGBA LZW": lambda: tiff_by_pillow("RGBA", "tiff_lzw"),
    "TIFF RGBA Zstandard": lambda: tiff_by_pillow("RGBA", "zstd"),
    "TIFF JPEG": lambda: tiff_by_pillow("RGB", "jpeg"),
    "TIFF RGB 16 bits LZW": lambda: by_opencv(".tif", np.uint16, 3, *ROWS_LZW),
    "TIFF RGBA 16 bits LZW": lambda: by_opencv(".tif", np.uint16, 4, *ROWS_LZW),
}


TRANSPARENT = ("PNG LA", "PNG palette", "PNG RGB 16 bits with a key", "WebP lossless", "TIFF RGBA 16 bits")


@pytest.mark.parametrize("name", FILES)
def test_bytes_and_seconds(name, measure):
    data = FILES[name]()
    for alpha in ("drop", "white") if name in TRANSPARENT else ("drop",):
        found = measure(data, alpha)
        (result,) = found["results"]
        assert result[:2] == [str(WIDTH), str(HEIGHT)]
        limit = 25 if name == "JPEG 2000 RGBA" else MAX_BYTES_A_PIXEL  # OpenJPEG's 20, Pillow's 4, and code-blocks
        assert found["bytes"] < limit * N_PIXELS
        assert found["seconds"] < MAX_SECONDS


def test_sixteen_threads_of_the_worst_files_stay_below_4_gb(measure):
    data = save(image("RGBA", 4300, 4200), "WEBP", lossless=True, method=0, quality=0)  # 290 MB each
    found = measure(data, n_threads=16)
    assert all(result[0] == "4300" for result in found["results"])
    assert found["all"] < 4e9
