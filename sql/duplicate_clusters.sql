-- Clusters of near-duplicates: near-duplicates of near-duplicates are in one cluster. Exact.
--
--   duplicate_clusters(radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', flat := 'identical')
--
--   radius     the maximum Hamming distance between two near-duplicates, in bits, inclusive
--   hash_type, tbl, id, flat: as for near_duplicates
--
-- Columns:
--   cluster_id         UINTEGER: clusters are numbered from 0 by their first row
--   kept               BOOLEAN: whether the row is the representative
--   distance           USMALLINT: bits to the representative, which may be more than the radius
--   representative_id  the id of the cluster's first row
-- and those of the table, hashes last. All rows, in order. A row whose hash is NULL is a cluster of its own, kept, with
-- NULL distance. An error if the table has columns of these names. The first row of a cluster is kept: to keep another
-- one, pass a view that sorts the table.
--
--   FROM duplicate_clusters(24);
--   SELECT cluster_id, list(source) FROM duplicate_clusters(4, 'phash') GROUP BY cluster_id HAVING count(*) > 1;
--
-- Needs the macros of near_duplicates.sql.

-- The lowest row that each row is connected with: row, label. edges has the columns one and other, in both directions.
-- In each round, a row passes its new label to its neighbours, until no label becomes lower.
-- UNION, not USING KEY: with that, DuckDB 2.0 finds the pairs again in every round (200,000 rows: 8 s against 0.7 s).
CREATE OR REPLACE MACRO imgmatch_labels(edges) AS TABLE
    WITH RECURSIVE passed(row, label) AS (
        SELECT one, least(one, min(other)) FROM query_table(edges) GROUP BY one
        UNION
        SELECT other, min(label)
        FROM passed JOIN query_table(edges) AS edge ON one = passed.row
        WHERE label < other
        GROUP BY other
    )
    SELECT passed.row, min(label) AS label FROM passed GROUP BY passed.row;

-- The cluster of every row that has a hash: row, representative UINTEGER, distance USMALLINT.
CREATE OR REPLACE MACRO imgmatch_clusters(radius, hash_type, tbl, flat) AS TABLE
    WITH hashed AS MATERIALIZED (FROM imgmatch_rows(hash_type, tbl, NULL, flat)),
    distinct_hashes AS MATERIALIZED (SELECT words, twin, min(row) AS row FROM hashed GROUP BY words, twin),
    compared AS (SELECT words, row FROM distinct_hashes WHERE twin IS NULL),
    near AS MATERIALIZED (FROM imgmatch_pairs(radius, 'compared')),
    edges AS MATERIALIZED (
        SELECT left_row AS one, right_row AS other FROM near UNION ALL SELECT right_row, left_row FROM near
    ),
    labels AS MATERIALIZED (FROM imgmatch_labels('edges')),
    -- A hash without a neighbour has no label.
    labelled AS (
        SELECT words, twin, coalesce(label, distinct_hashes.row) AS representative
        FROM distinct_hashes LEFT JOIN labels ON labels.row = distinct_hashes.row
    )
    SELECT hashed.row, representative, bit_count(xor(hashed.words, first_hashes.words))::USMALLINT AS distance
    FROM hashed
    JOIN labelled ON hashed.words = labelled.words AND hashed.twin IS NOT DISTINCT FROM labelled.twin
    JOIN distinct_hashes AS first_hashes ON first_hashes.row = representative;

CREATE OR REPLACE MACRO duplicate_clusters(
    radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_verb(
            'duplicate_clusters', radius, hash_type, tbl, id, ['cluster_id', 'kept', 'distance', 'representative_id']
        )
    ),
    imgmatch_found AS MATERIALIZED (FROM imgmatch_clusters(radius, hash_type, tbl, flat)),
    imgmatch_numbered AS (
        SELECT *, (row_number() OVER () - 1)::UINTEGER AS imgmatch_row, NULL AS imgmatch_none FROM query_table(tbl)
    ),
    keys AS MATERIALIZED (
        SELECT
            imgmatch_row AS row,
            COLUMNS(imgmatch_one(list_filter((*), lambda name: name <> 'imgmatch_none'), coalesce(id, 'imgmatch_row')))
                AS key
        FROM imgmatch_numbered
    ),
    clusters AS (
        SELECT row, coalesce(representative, row) AS representative, distance
        FROM keys LEFT JOIN imgmatch_found USING (row)
    ),
    described AS (
        SELECT
            (dense_rank() OVER (ORDER BY representative) - 1)::UINTEGER AS cluster_id,
            clusters.row = representative AS kept,
            distance,
            key AS representative_id,
            clusters.row AS imgmatch_row
        FROM clusters JOIN keys ON keys.row = representative
    ),
    named AS (
        SELECT
            COLUMNS(lambda name: lower(name) NOT IN ('cluster_id', 'kept', 'distance', 'representative_id')
                AND NOT imgmatch_is_last(lower(name))),
            COLUMNS(lambda name: imgmatch_is_last(lower(name)))
        FROM imgmatch_numbered
    )
    SELECT described.* EXCLUDE imgmatch_row, named.* EXCLUDE (imgmatch_row, imgmatch_none)
    FROM imgmatch_checked, described JOIN named USING (imgmatch_row)
    WHERE zero = 0
    ORDER BY imgmatch_row;

COMMENT ON MACRO TABLE duplicate_clusters IS
    'duplicate_clusters(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', flat := '
    '''identical''): every row with cluster_id, kept, distance and representative_id. Example: FROM '
    'duplicate_clusters(24)';

COMMENT ON MACRO TABLE duplicate_clusters IS
    'duplicate_clusters(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', '
    'flat := ''identical''): every row with cluster_id, kept, distance and representative_id. Example: FROM '
    'duplicate_clusters(24)';
