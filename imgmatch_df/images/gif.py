"""Blocks of a GIF for its first frame, without all others, which may be damaged or large."""

from imgmatch_df.images.kernels import codecs

Data = bytes | memoryview


def first_frame(data: Data) -> Data:
    """Return a GIF with the palette, the first frame and the last control extension before it only.

    Raises
    ------
    EOFError
        If the file ends before its first frame.
    """
    view = memoryview(data)
    if len(view) < 13:
        raise EOFError(f"{len(view)} bytes")
    start = 13 + (3 << (view[10] & 7) + 1 if view[10] & 0x80 else 0)
    frame, control = codecs.first_gif_frame(codecs.as_bytes(data), start)
    if frame < 0:
        raise EOFError("no frame")
    if frame + 10 > len(view):
        raise EOFError("a frame without a size")
    if frame == start or (control == start and frame == start + 8):
        return data
    control_extension = b"" if control < 0 else bytes(view[control : control + 7]) + b"\0"
    return b"".join([view[:start], control_extension, view[frame:]])


def has_palette(data: Data) -> bool:
    """Return whether a GIF of one frame, as `first_frame` returns it, has a palette."""
    control = 8 if data[13] == ord("!") else 0
    return bool(data[10] & 0x80) or bool(data[13 + control + 9] & 0x80)
