"""The verbs on Apache Spark: DataFrames in and out, classic and Connect sessions.

Each result is that of the verb of the same name on one machine, on the rows in the order of `id`: rows of Spark have no
order of their own. `visual_hash` is lazy. A join runs when it is called: it writes what it finds to files in a work
folder, and returns a DataFrame over these files. Needs the extra ``spark``.
"""

from imgmatch_df.spark.clustering import cluster, remove_duplicates
from imgmatch_df.spark.copies import find_copies
from imgmatch_df.spark.hashing import visual_hash
from imgmatch_df.spark.pairs import match, near_duplicates
from imgmatch_df.spark.sessions import session
from imgmatch_df.spark.tables import read_hashes, write_hashes

__all__ = [
    "cluster",
    "find_copies",
    "match",
    "near_duplicates",
    "read_hashes",
    "remove_duplicates",
    "session",
    "visual_hash",
    "write_hashes",
]
