"""RAW files as cameras write them: TIFFs with the data of a sensor, and a preview as a JPEG or as pixels."""

import struct

import numpy as np

_SHORT, _LONG, _BYTE, _ASCII = 3, 4, 1, 2
_FORMATS = {_SHORT: "H", _LONG: "I", _BYTE: "B"}
_SENSOR = (64, 48)


def raw_file(preview, *, order="<", orientation=1, make="Nikon", dng=True, size=(400, 300), photometric=32803):
    """Return a RAW file.

    Parameters
    ----------
    preview
        A JPEG of `size`, or an array of pixels, ``(rows, columns, 3)``.
    order
        Byte order, ``"<"`` or ``">"``.
    orientation
        EXIF orientation of the file.
    make
        Name of the maker.
    dng
        Whether the file has the tags of a DNG.
    size
        Width and height of a JPEG.
    photometric
        Photometric interpretation of the second directory: a colour filter array, unless it is 1, grey.
    """
    width, height = size if isinstance(preview, bytes) else preview.shape[1::-1]
    body = preview if isinstance(preview, bytes) else preview.tobytes()
    columns, rows = _SENSOR
    sensor = np.random.default_rng(1).integers(0, 4000, (rows, columns)).astype(f"{order}u2").tobytes()
    start = 16
    at_sensor = start + len(body) + len(body) % 2
    at_sub = at_sensor + len(sensor)
    sub = {
        254: (_LONG, [0]),
        256: (_LONG, [columns]),
        257: (_LONG, [rows]),
        258: (_SHORT, [16]),
        259: (_SHORT, [1]),
        262: (_SHORT, [photometric]),
        273: (_LONG, [at_sensor]),
        277: (_SHORT, [1]),
        278: (_LONG, [rows]),
        279: (_LONG, [len(sensor)]),
        33421: (_SHORT, [2, 2]),
        33422: (_BYTE, [0, 1, 1, 2]),
    }
    is_jpeg = isinstance(preview, bytes)
    sub_bytes = _directory(sub, at_sub, order)
    at_main = at_sub + len(sub_bytes)
    main = {
        254: (_LONG, [1]),
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7 if is_jpeg else 1]),
        262: (_SHORT, [6 if is_jpeg else 2]),
        271: (_ASCII, make.encode() + b"\0"),
        272: (_ASCII, b"Test 1\0"),
        273: (_LONG, [start]),
        274: (_SHORT, [orientation]),
        277: (_SHORT, [3]),
        278: (_LONG, [height]),
        279: (_LONG, [len(body)]),
        330: (_LONG, [at_sub]),
    }
    if dng:
        main |= {50706: (_BYTE, [1, 4, 0, 0]), 50708: (_ASCII, b"Test 1\0")}
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at_main)
    return header + bytes(8) + body + bytes(len(body) % 2) + sensor + sub_bytes + _directory(main, at_main, order)


def _directory(tags, at, order):
    extra = at + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        data = values if kind == _ASCII else struct.pack(f"{order}{len(values)}{_FORMATS[kind]}", *values)
        if len(data) > 4:
            place = struct.pack(order + "I", extra + len(more))
            more += data + bytes(len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + place
    return struct.pack(order + "H", len(tags)) + entries + bytes(4) + more
