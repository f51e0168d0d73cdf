-- The clusters of two rows or more, one row for each: which row is kept, and which are its copies. Exact.
--
--   copies(radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', flat := 'identical')
--
--   radius     the maximum Hamming distance between two near-duplicates, in bits, inclusive
--   hash_type, tbl, id, flat: as for near_duplicates
--
-- Columns:
--   kept      the id of the representative: the first row of the cluster, as duplicate_clusters keeps it
--   copies    UINTEGER: the number of other rows
--   farthest  USMALLINT: the maximum distance of these to the representative, which may be more than the radius
--   bytes     UBIGINT: the sum of their sizes, as the column size of a store has them. Rows whose size is NULL are left
--             out; NULL where no size is known
--   removed   a list of their ids, in the order of the rows
-- Most copies first, then in the order of the representatives. Rows whose hash is NULL are in no cluster.
--
--   FROM copies(24);
--   SELECT sum(copies), sum(bytes) FROM copies(4, 'phash');
--   SELECT kept, unnest(removed) AS copy FROM copies(24);
--
-- Needs the macros of near_duplicates.sql and duplicate_clusters.sql.

-- The size of a file in bytes. A column of another type than a whole number is not one of sizes.
CREATE OR REPLACE MACRO imgmatch_size(size) AS CASE
    WHEN typeof(size) IN ('UBIGINT', 'BIGINT', 'UINTEGER', 'INTEGER', 'USMALLINT', 'SMALLINT', 'UTINYINT', 'TINYINT',
        'HUGEINT', 'UHUGEINT') THEN try_cast(size AS UBIGINT)
END;

CREATE OR REPLACE MACRO copies(
    radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (FROM imgmatch_check_verb('copies', radius, hash_type, tbl, id, [])),
    imgmatch_found AS MATERIALIZED (FROM imgmatch_clusters(radius, hash_type, tbl, flat)),
    imgmatch_numbered AS (
        SELECT *, (row_number() OVER () - 1)::UINTEGER AS imgmatch_row, NULL AS imgmatch_none FROM query_table(tbl)
    ),
    keys AS (
        SELECT
            imgmatch_row AS row,
            COLUMNS(imgmatch_one(list_filter((*), lambda name: name <> 'imgmatch_none'), coalesce(id, 'imgmatch_row')))
                AS key,
            imgmatch_size(COLUMNS(imgmatch_one((*), 'size'))) AS size
        FROM imgmatch_numbered
    ),
    removed AS (
        SELECT representative, imgmatch_found.row, distance, key, size
        FROM imgmatch_found JOIN keys ON keys.row = imgmatch_found.row
        WHERE imgmatch_found.row <> representative
    ),
    clusters AS (
        SELECT
            representative,
            count(*)::UINTEGER AS copies,
            max(distance) AS farthest,
            try_cast(sum(size) AS UBIGINT) AS bytes,
            list(key ORDER BY removed.row) AS removed
        FROM removed GROUP BY representative
    )
    SELECT key AS kept, copies, farthest, bytes, clusters.removed AS removed
    FROM imgmatch_checked, clusters JOIN keys ON keys.row = representative
    WHERE zero = 0
    ORDER BY copies DESC, representative;

COMMENT ON MACRO TABLE copies IS
    'copies(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', flat := ''identical''): each '
    'cluster in one row: kept, copies, farthest, bytes and the ids of the removed rows, most copies first. '
    'Example: FROM copies(24)';

COMMENT ON MACRO TABLE copies IS
    'copies(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', flat := ''identical''): each '
    'cluster in one row: kept, copies, farthest, bytes and the ids of the removed rows, most copies first. '
    'Example: FROM copies(24)';
