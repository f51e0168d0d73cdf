"""Compositing of transparent pixels over one colour, for all formats with an alpha channel."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.rows import row_slices

Pixels = npt.NDArray[np.uint8]

BACKGROUNDS: Final[dict[str, int | None]] = {"drop": None, "white": 255, "black": 0}
"""The grey value behind the pixels for each value of the option `alpha`; None drops the transparency."""


def composite(pixels: Pixels, alpha: npt.NDArray[Any], background: int) -> None:
    """Put `pixels` over a grey `background`, in place: ``(value * alpha + background * (255 - alpha) + 127) // 255``.

    Parameters
    ----------
    pixels
        uint8, (rows, columns) or (rows, columns, 3 or 4); a fourth channel is not changed.
    alpha
        uint8, (rows, columns): 0 is transparent, 255 is opaque. It may be the fourth channel of `pixels`.
    background
        0 to 255.
    """
    for rows in row_slices(*alpha.shape):
        opaque = alpha[rows].astype(np.uint16)
        behind = (255 - opaque) * np.uint16(background) + np.uint16(127)  # the sum stays below 65,536
        part = pixels[rows]
        for plane in [part] if part.ndim == 2 else [part[..., channel] for channel in range(3)]:
            plane[...] = (plane * opaque + behind) // np.uint16(255)
