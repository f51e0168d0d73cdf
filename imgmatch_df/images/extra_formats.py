"""Decoders of the formats that need an extra: HEIC, JPEG XL, and the previews of RAW files."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from imgmatch_df.errors import Failure
from imgmatch_df.images import extras, foreign, heif, jxl, jxl_header, raw
from imgmatch_df.images.extras import Extra
from imgmatch_df.images.guard import Data, DecodedImage, admit, decoded, guarded
from imgmatch_df.images.pixels import stored_samples
from imgmatch_df.options import Options

DecodeJpeg: TypeAlias = Callable[[Data, Options, int], DecodedImage | Failure]


class ExtraFormat(NamedTuple):
    """A format that an extra reads.

    Parameters
    ----------
    name
        Its name in messages.
    extra
        The extra.
    accept
        Returns whether a file is of this format.
    read
        Returns the image of a file, given the function that decodes a JPEG in it.
    """

    name: str
    extra: Extra
    accept: Callable[[Data], bool]
    read: Callable[[Data, Options, DecodeJpeg], DecodedImage | Failure]

    def decode(self, data: Data, options: Options, decode_jpeg: DecodeJpeg) -> DecodedImage | Failure:
        """Return the image in `data`, or why it cannot be decoded."""
        return _with_extra(self.extra, self.name, lambda: self.read(data, options, decode_jpeg), options)


def decode_preview_of_raw(name: str, data: Data, options: Options, decode_jpeg: DecodeJpeg) -> DecodedImage | Failure:
    """Return the largest preview in a RAW file, with a detail that says so; `name` is the kind of RAW."""
    return _with_extra(extras.RAW, name, lambda: _read_raw(name, data, options, decode_jpeg), options)


def _read_raw(name: str, data: Data, options: Options, decode_jpeg: DecodeJpeg) -> DecodedImage | Failure:
    preview = raw.read_preview(data)
    if preview.pixels is None:
        image = decode_jpeg(preview.jpeg, options, preview.orientation)
    else:
        height, width = preview.pixels.shape[:2]
        if (refused := admit("RAW", data, width, height, options)) is not None:
            return refused
        image = decoded(stored_samples(preview.pixels), preview.orientation, width, height)
    if isinstance(image, Failure):
        return Failure(image.status, f"preview of {name}: {image.detail}")
    return image._replace(detail=f"hash of the embedded preview, {image.width}x{image.height}")


def _with_extra(
    extra: Extra, name: str, read: Callable[[], DecodedImage | Failure], options: Options
) -> DecodedImage | Failure:
    """Return what `read` returns, or which extra must be installed for it."""
    try:
        return guarded(name, lambda _data, _options: read(), b"", options)
    except ImportError as error:
        if extras.is_installed(extra):
            return Failure("decode_failed", f"{name} images need {extra.module}, which cannot be imported: {error}")
        command = extras.install_command(extra)
        return Failure("decode_failed", f"{name} images need the extra {extra.name}: {command}")


def _is_jxl(data: Data) -> bool:
    return bytes(data[:12]).startswith((jxl_header.CODESTREAM, jxl_header.CONTAINER))


EXTRA_FORMATS: Final = (
    ExtraFormat("HEIC", extras.HEIF, foreign.is_heic, lambda data, options, _: heif.decode_heif(data, options)),
    ExtraFormat("JPEG XL", extras.JXL, _is_jxl, jxl.decode_jxl),
)
