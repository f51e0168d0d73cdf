"""What the kernel of a hash kind gets: one decoded image, and the small grey squares that kinds share."""

from typing import Any, Final

import numpy as np
from PIL import Image

from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kernels.resize import resize_to_square
from imgmatch_df.options import Options, Recipe

Array = np.ndarray[Any, Any]

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_BY_DEFAULT: Final = Recipe()


class HashInput:
    """One decoded image. It is valid until the kernel returns: its memory is used again.

    Parameters
    ----------
    pixels
        uint8 (height, width, 4) RGBX, the fourth byte without a meaning, or uint8 (height, width) grey, as they are
        stored. C-contiguous, maybe read-only.
    orientation
        1 to 8 as in EXIF: how the stored pixels are to be turned.
    encoded
        The whole file, an object with the buffer protocol.
    options
        How to hash: `trim` and `pdq_variant` apply.

    Attributes
    ----------
    pixels
        As given; with ``trim="borders"`` only the inside of the borders.
    whole
        The pixels as given, borders included.
    pdq_variant
        As in the options.
    memo
        What the kernels of several kinds need, by a name: the first one that needs it puts it there.
    """

    __slots__ = ("_pillow_grey", "_squares", "encoded", "memo", "orientation", "pdq_variant", "pixels", "whole")

    def __init__(self, pixels: Array, orientation: int, encoded: Any = b"", options: Options | None = None) -> None:
        by = _BY_DEFAULT if options is None else options
        self.pixels = pixels if by.trim is None else inside_of_borders(pixels)
        self.whole = pixels
        self.pdq_variant = by.pdq_variant
        self.orientation = orientation
        self.encoded = encoded
        self.memo: dict[str, Any] = {}
        self._squares: dict[int, tuple[Array, bool]] = {}
        self._pillow_grey: Image.Image | None = None

    def grey_square(self, side: int) -> Array:
        """Return the image, as it is seen, as a grey square: uint8 (side, side), not to be changed.

        Equal, bit for bit, to OpenCV's `resize` with `INTER_LINEAR_EXACT` and `cvtColor` to grey. All kinds that
        use one side share one square.

        Raises
        ------
        ArgumentError
            If `side` is not a multiple of 16.
        """
        square, is_transposed = self.square_and_axes(side)
        if is_transposed:
            upright = self._squares.get(-side)  # beside the one of `square_and_axes`
            if upright is None:
                upright = self._squares[-side] = np.ascontiguousarray(square.T), False
            return upright[0]
        return square

    def square_and_axes(self, side: int) -> tuple[Array, bool]:
        """Return the grey square as it is in memory, and whether the image as seen is its transpose.

        For kernels that can read by columns: transposing 256 x 256 pixels takes as long as hashing them.
        """
        found = self._squares.get(side)
        if found is None:
            if side <= 0 or side % 16:
                raise ArgumentError(f"side must be a multiple of 16, got {side}\nHint: 32 and 256 are shared.")
            square = np.empty((side, side), np.uint8)
            found = self._squares[side] = square, resize_to_square(self.pixels, self.orientation, square)
        return found

    def pillow_grey(self) -> Image.Image:
        """Return the image, as it is seen, as a Pillow image of mode L, not to be changed.

        Equal to `convert("L")` of the decoded image. All kinds that call it share one image.
        """
        if self._pillow_grey is None:
            height, width = self.pixels.shape[:2]
            # Pillow reads the pixels where they are, without a copy.
            mode = "L" if self.pixels.ndim == 2 else "RGBX"
            image = Image.frombuffer(mode, (width, height), self.pixels, "raw", mode, 0, 1).convert("L")
            turn = _TURNS.get(self.orientation)
            self._pillow_grey = image if turn is None else image.transpose(turn)
        return self._pillow_grey


def inside_of_borders(pixels: Array) -> Array:
    """Return the pixels inside of the borders, C-contiguous: a view where the borders are whole rows, else a copy."""
    # Imported here: compiling it takes a third of the first run, and few runs trim.
    from imgmatch_df.hashes.kernels.borders import find_borders

    top, bottom, left, right = find_borders(pixels)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def upright(pixels: Array, orientation: int) -> Array:
    """Return pixels, uint8 (h, w) or (h, w, n), as they are seen, C-contiguous; orientation 1 to 8 as in EXIF."""
    return np.ascontiguousarray(upright_view(pixels, orientation))


def upright_view(pixels: Array, orientation: int) -> Array:
    """Return pixels as `upright`, without a copy."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
