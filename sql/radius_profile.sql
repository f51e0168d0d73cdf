-- What each radius finds: pairs and clusters at every radius up to a largest one. Exact.
--
--   radius_profile(max_radius, hash_type := 'bmh1', tbl := 'hashes', max_pairs := 1000000, flat := 'identical')
--
--   max_radius  the largest radius, in bits, inclusive
--   max_pairs   the maximum number of pairs of different hashes. More are an error, before the clusters are found
--   hash_type, tbl, flat: as for near_duplicates
--
-- Columns, one row for each radius from 0 on:
--   radius      USMALLINT
--   n_pairs     UBIGINT: pairs of rows within the radius
--   n_clusters  UINTEGER: clusters of two rows or more, as duplicate_clusters makes them
--   n_removed   UINTEGER: rows of these beyond the first of each
--   n_largest   UINTEGER: rows of the largest cluster
-- How many of the pairs are of unrelated images is estimated by profile_radii in Python and by imgmatch advise.
--
--   FROM radius_profile(48);
--   FROM radius_profile(10, 'phash', tbl := 'photos.parquet') WHERE radius % 2 = 0;
--
-- Needs the macros of near_duplicates.sql.

-- The lowest row that each row is connected with by edges of at most some length, for each length that edges have:
-- level, row, label. edges has the columns one, other and distance, in both directions. As imgmatch_labels.
CREATE OR REPLACE MACRO imgmatch_level_labels(edges) AS TABLE
    WITH RECURSIVE levels AS MATERIALIZED (SELECT DISTINCT distance AS level FROM query_table(edges)),
    reached AS MATERIALIZED (SELECT level, one, other FROM query_table(edges), levels WHERE distance <= level),
    passed(level, row, label) AS (
        SELECT level, one, least(one, min(other)) FROM reached GROUP BY level, one
        UNION
        SELECT reached.level, other, min(label)
        FROM passed JOIN reached ON one = passed.row AND reached.level = passed.level
        WHERE label < other
        GROUP BY reached.level, other
    )
    SELECT passed.level, passed.row, min(label) AS label FROM passed GROUP BY passed.level, passed.row;

CREATE OR REPLACE MACRO radius_profile(
    max_radius, hash_type := 'bmh1', tbl := 'hashes', max_pairs := 1000000, flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_verb('radius_profile', max_radius, hash_type, tbl, NULL, [])
    ),
    hashed AS MATERIALIZED (FROM imgmatch_rows(hash_type, tbl, NULL, flat)),
    distinct_hashes AS MATERIALIZED (
        SELECT words, twin, min(row) AS row, count(*) AS n_rows FROM hashed GROUP BY words, twin
    ),
    compared AS (SELECT words, row FROM distinct_hashes WHERE twin IS NULL),
    near AS MATERIALIZED (FROM imgmatch_pairs(max_radius, 'compared')),
    counted AS MATERIALIZED (SELECT count(*) AS n_pairs FROM near),
    checked AS MATERIALIZED (
        SELECT CASE WHEN n_pairs > max_pairs THEN error(format(
            'radius_profile: {} pairs, more than max_pairs {}. Hint: a smaller max_radius, or profile_radii in Python.',
            n_pairs, max_pairs)) ELSE imgmatch_checked.zero END AS zero
        FROM counted, imgmatch_checked
    ),
    edges AS MATERIALIZED (
        SELECT left_row AS one, right_row AS other, distance FROM near, checked WHERE zero = 0
        UNION ALL
        SELECT right_row, left_row, distance FROM near, checked WHERE zero = 0
    ),
    components AS MATERIALIZED (
        SELECT
            level,
            label,
            count(*) AS n_hashes,
            sum(n_rows) AS n_rows,
            count(*) FILTER (n_rows > 1) AS n_shared
        FROM imgmatch_level_labels('edges') AS labels JOIN distinct_hashes USING (row)
        GROUP BY level, label
    ),
    at_level AS (
        SELECT
            level,
            count(*) - sum(n_shared) AS n_clusters,
            sum(n_hashes - 1) AS n_removed,
            max(n_rows) AS n_largest
        FROM components
        GROUP BY level
    ),
    pairs AS (
        SELECT distance, sum(l.n_rows * r.n_rows) AS n_pairs
        FROM near
        JOIN distinct_hashes AS l ON l.row = left_row
        JOIN distinct_hashes AS r ON r.row = right_row
        GROUP BY distance
    ),
    equal AS (
        SELECT
            coalesce(sum(n_rows * (n_rows - 1) // 2), 0) AS n_pairs,
            count(*) FILTER (n_rows > 1) AS n_clusters,
            coalesce(sum(n_rows - 1), 0) AS n_removed,
            coalesce(max(n_rows), 0) AS n_largest
        FROM distinct_hashes
    ),
    radii AS (SELECT unnest(range(max_radius::BIGINT + 1)) AS radius FROM checked WHERE zero = 0)
    SELECT
        radius::USMALLINT AS radius,
        (equal.n_pairs + coalesce(sum(pairs.n_pairs) OVER (ORDER BY radius), 0))::UBIGINT AS n_pairs,
        (equal.n_clusters + coalesce(at_level.n_clusters, 0))::UINTEGER AS n_clusters,
        (equal.n_removed + coalesce(at_level.n_removed, 0))::UINTEGER AS n_removed,
        greatest(equal.n_largest, coalesce(at_level.n_largest, 0))::UINTEGER AS n_largest
    FROM radii
    CROSS JOIN equal
    LEFT JOIN pairs ON pairs.distance = radius
    ASOF LEFT JOIN at_level ON radius >= level
    ORDER BY radius;

COMMENT ON MACRO TABLE radius_profile IS
    'radius_profile(max_radius, hash_type := ''bmh1'', tbl := ''hashes'', max_pairs := 1000000, flat := '
    '''identical''): numbers of pairs, clusters and removed rows at each radius from 0. Example: FROM '
    'radius_profile(48)';

COMMENT ON MACRO TABLE radius_profile IS
    'radius_profile(max_radius, hash_type := ''bmh1'', tbl := ''hashes'', max_pairs := 1000000, '
    'flat := ''identical''): numbers of pairs, clusters and removed rows at each radius from 0. Example: FROM '
    'radius_profile(48)';
