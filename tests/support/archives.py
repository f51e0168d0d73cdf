"""Archives of drawn images, whole and odd, made by the standard library."""

import io
import tarfile
import zipfile
from pathlib import Path

from drawing import draw, jpeg

# Time of modification of members as webdataset writes it: a number with a fraction needs a PAX header.
MODIFIED = 1_700_000_000.25


def image(seed: int) -> bytes:
    """Return a small JPEG."""
    return jpeg(draw(seed))


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **facts: object) -> None:
    """Add a member to a tar; `facts` are attributes of its `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), MODIFIED  # type: ignore[assignment]  # webdataset does so
    for fact, value in facts.items():
        setattr(info, fact, value)
    archive.addfile(info, io.BytesIO(data))


def write_tar(path: Path, members: dict[str, bytes], format_: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar of files."""
    with tarfile.open(path, "w", format=format_) as archive:
        for name, data in members.items():
            add(archive, name, data)
    return path


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip of files."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
