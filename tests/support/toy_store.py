"""Two kinds of stores, as an extension writes them: one file (suffix .toy), and rows in memory (scheme memory:)."""

import io
import json

import polars as pl

from imgmatch_df.atomic import written_file
from imgmatch_df.store.base import HashStore, MissingStoreError, StoreKind
from imgmatch_df.store.locks import sole_writer
from imgmatch_df.store.manifest import Manifest

MEMORY = {}


class ToyStore(HashStore):
    """A line of JSON, the manifest, and an Arrow file."""

    def __init__(self, path, *, write=False):
        self.path, self._lock = path, sole_writer(path) if write else None
        if write:
            self._lock.__enter__()
        about, _, rows = path.read_bytes().partition(b"\n")
        self.manifest, self.rows = Manifest.parse(json.loads(about), repr(str(path))), pl.read_ipc(io.BytesIO(rows))

    @staticmethod
    def create(path, manifest):
        with sole_writer(path):
            if not path.exists():
                save(path, manifest, pl.DataFrame(schema=manifest.columns))

    def count(self):
        return self.rows.height

    def read(self, columns, n_rows=None, predicate=None):
        rows = self.rows if n_rows is None else self.rows.head(n_rows)
        yield (rows if predicate is None else rows.filter(predicate)).select(columns)

    def stored(self, keys, columns):
        key = self.manifest.key
        return self.rows.join(keys.alias(key).to_frame(), on=key, how="semi", maintain_order="left").select(columns)

    def commit(self, new, changed):
        key = self.manifest.key
        places = self.rows.with_row_index("place").select("place", key)
        old = self.rows.join(changed, on=key, how="anti").join(places, on=key)
        self.rows = pl.concat([old, changed.join(places, on=key)]).sort("place").drop("place").vstack(new)

    def flush(self):
        save(self.path, self.manifest, self.rows)

    def prune(self, keys):
        before, self.rows = self.rows.height, self.stored(keys, self.rows.columns)
        self.flush()
        return before - self.rows.height

    def close(self):
        if self._lock is not None:
            self.flush()
            self._lock.__exit__(None, None, None)
            self._lock = None


def save(path, manifest, rows):
    with written_file(path, path.with_suffix(".partial"), like=path) as file:
        file.write(json.dumps(manifest.entries).encode() + b"\n")
        buffer = io.BytesIO()
        rows.write_ipc(buffer)
        file.write(buffer.getvalue())


class MemoryStore(ToyStore):
    def __init__(self, uri, *, write=False):
        if uri not in MEMORY:
            raise MissingStoreError(f"no such store: {uri!r}\nHint: write_hashes creates one.")
        self.uri, self._write = uri, write
        self.manifest, self.rows = MEMORY[uri]

    @staticmethod
    def create(uri, manifest):
        MEMORY.setdefault(uri, (manifest, pl.DataFrame(schema=manifest.columns)))

    def flush(self):
        MEMORY[self.uri] = self.manifest, self.rows

    def close(self):
        if self._write:
            self.flush()


KINDS = {".toy": StoreKind(ToyStore, ToyStore.create), "memory:": StoreKind(MemoryStore, MemoryStore.create)}
