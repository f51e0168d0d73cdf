"""Addresses that a store of hashes knows already: answered from there instead of fetched."""

import logging
from collections.abc import Mapping, Sequence
from os import PathLike

import polars as pl

from imgmatch_df.errors import StoreError
from imgmatch_df.manifest import Manifest
from imgmatch_df.schema import HASH_KINDS, OK, SOURCE, STATUS, visual_hash_fields
from imgmatch_df.server.hasher import Row
from imgmatch_df.server.observe import log
from imgmatch_df.store import open_store


class StoredRows:
    """Looks addresses up in a store.

    The store is open only while it is asked, so that others can write it between requests; while they do, nothing is
    known, and addresses are fetched.

    Parameters
    ----------
    target
        A store whose key is the address, such as `imgmatch visual-hash urls.csv -o hashes.duckdb` writes.
    recipe
        How the service makes pixels, which must be how the store has them made.

    Raises
    ------
    StoreError
        If there is no such store, or its hashes are not those that the service would make.
    """

    def __init__(self, target: str | PathLike[str], recipe: str) -> None:
        self._target = target
        with open_store(target) as store:
            manifest = store.manifest
        if manifest.has_source and manifest.key != SOURCE:
            raise StoreError(
                f"the key of {str(target)!r} is {manifest.key!r}, not the address\n"
                "Hint: write a store without key=, so that the source is the key."
            )
        wanted = Manifest.make(manifest.key, pl.String(), tuple(HASH_KINDS), recipe, has_source=manifest.has_source)
        manifest.check_same(wanted, repr(str(target)))

    def __call__(self, urls: Sequence[str]) -> Mapping[str, Row]:
        """Return the rows of those addresses that have hashes; they have the columns of `visual_hash_fields`."""
        try:
            with open_store(self._target) as store:
                key = store.manifest.key
                found = store.stored(pl.Series(urls, dtype=pl.String).unique(), [key, *visual_hash_fields()])
        except StoreError as error:
            log("store not read", level=logging.WARNING, reason=str(error).splitlines()[0])
            return {}
        rows = found.filter(pl.col(STATUS) == OK).iter_rows(named=True)
        return {row.pop(key): row for row in rows}
