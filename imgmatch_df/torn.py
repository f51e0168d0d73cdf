"""DuckDB files whose writer was killed in the middle of a block.

A checkpoint writes blocks of metadata that have free places over themselves, and the header that refers to what is new
in them afterwards (`MetadataManager::Flush` and `SingleFileBlockManager::WriteHeader` of DuckDB 1.5 and 2.0). Killed in
between, it leaves a block that is new in front and old behind. All that the header refers to is the same in both; only
the checksum, in front, is that of the new block, and no DuckDB opens the file any more.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_TORN: Final = re.compile(r"computed checksum (\d+) does not match stored checksum (\d+) in block at location (\d+)")
_CHECKSUM_BYTES: Final = 8


def mend(path: Path, table: str) -> None:
    """Give the torn blocks of a DuckDB file the checksums of what they hold; other damage is left for DuckDB to tell.

    Parameters
    ----------
    path
        The file. Only where its log lies beside it a checkpoint may have been killed: a damaged block of a file
        without one is never touched.
    table
        What is looked at, beside the catalog: all that DuckDB knows of where its rows are.
    """
    import duckdb

    log = path.with_name(f"{path.name}.wal")
    mended = True
    while mended and log.exists():
        mended = False
        try:
            written_ns = path.stat().st_mtime_ns
            with duckdb.connect(str(path), read_only=True) as connection:
                connection.execute("SELECT count(*) FROM pragma_storage_info(?)", [table])
        except duckdb.Error as error:
            if torn := _TORN.search(str(error)):
                computed, stored, location = map(int, torn.groups())
                mended = _replace_checksum(path, written_ns, location, stored, computed)
        except OSError:
            return


def _replace_checksum(path: Path, written_ns: int, location: int, stored: int, computed: int) -> bool:
    """Replace a checksum, unless somebody writes; return whether the file is worth another look."""
    with suppress(OSError), path.open("rb+") as file, _alone(file):
        if path.stat().st_mtime_ns != written_ns:
            return True  # another process has mended it
        file.seek(location)
        if file.read(_CHECKSUM_BYTES) == stored.to_bytes(_CHECKSUM_BYTES, "little"):
            file.seek(location)
            file.write(computed.to_bytes(_CHECKSUM_BYTES, "little"))
            return True
    return False


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Hold the lock that DuckDB holds on a file that it has open; raise OSError where another process has it."""
    with suppress(ImportError):  # elsewhere a file that DuckDB writes cannot be opened
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
