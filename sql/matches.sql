-- Matches: every pair of a row of one table and a row of the reference whose hashes are within a radius. Exact.
--
--   matches(tbl, radius, reference := 'hashes', hash_type := 'bmh1', id := 'source', reference_id := 'source',
--           max_pairs := 100000000, flat := 'identical')
--
--   tbl           the queries: any table, view, common table expression or file that has the column of hashes, by name
--   radius        the maximum Hamming distance, in bits, inclusive
--   reference     the table to compare with, as tbl
--   hash_type     the column of hashes of both, as for near_duplicates
--   id, reference_id  the columns whose values identify the rows of tbl and of reference. NULL: row numbers, from 0
--   max_pairs, flat: as for near_duplicates
--
-- Columns: query_id, reference_id, distance USMALLINT (bits). In the order of the rows of tbl, and for each of them the
-- nearest first, then in the order of the rows of reference. A row of tbl that matches nothing is in no row of the
-- result. A row that is in both tables matches itself; WHERE query_id <> reference_id leaves it out.
--
--   FROM matches('today.parquet', 24, id := 'path');
--   FROM matches('inbox', 4, hash_type := 'phash', reference := 'blocklist.csv', reference_id := 'name');
--   FROM matches('inbox', 24) QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY distance) = 1;
--
-- Needs the macros of near_duplicates.sql.

-- As imgmatch_key, also where one table has no column of hashes, so that its type is another one. Then
-- imgmatch_check_call raises the error.
CREATE OR REPLACE MACRO imgmatch_cross_key
    (band, words UBIGINT, mask UBIGINT, flip) AS imgmatch_key(band, words, mask, flip),
    (band, words BIT, mask BIT, flip) AS imgmatch_key(band, words, mask, flip),
    (band, words UBIGINT, mask BIT, flip) AS NULL::UBIGINT,
    (band, words BIT, mask UBIGINT, flip) AS NULL::UBIGINT;

CREATE OR REPLACE MACRO imgmatch_cross_distance
    (a UBIGINT, b UBIGINT) AS bit_count(xor(a, b)),
    (a BIT, b BIT) AS bit_count(xor(a, b)),
    (a UBIGINT, b BIT) AS NULL::USMALLINT,
    (a BIT, b UBIGINT) AS NULL::USMALLINT;

-- The pairs of a hash of queries and a hash of references within the radius: query_row, reference_row, distance. Both
-- have the columns row and words.
CREATE OR REPLACE MACRO imgmatch_cross_pairs(radius, queries, referenced) AS TABLE
    WITH sample AS MATERIALIZED (SELECT words FROM query_table(referenced) LIMIT 1),
    plan AS (
        SELECT imgmatch_n_bits(words) AS n_bits, imgmatch_n_bands(words, radius) AS n_bands, radius AS n_differing
        FROM sample
    ),
    probes AS MATERIALIZED (
        SELECT band, flip, imgmatch_mask(words, mask) AS mask FROM imgmatch_probes('plan'), sample
    ),
    stored AS (
        SELECT row, words, imgmatch_key(band, words, mask, flip) AS key
        FROM query_table(referenced), (FROM probes WHERE flip = 0)
    ),
    probed AS (SELECT row, words, imgmatch_cross_key(band, words, mask, flip) AS key FROM query_table(queries), probes)
    SELECT DISTINCT
        l.row AS query_row, r.row AS reference_row, imgmatch_cross_distance(l.words, r.words)::USMALLINT AS distance
    FROM probed AS l JOIN stored AS r USING (key)
    WHERE imgmatch_cross_distance(l.words, r.words) <= coalesce(radius, 0);

CREATE OR REPLACE MACRO matches(
    tbl, radius, reference := 'hashes', hash_type := 'bmh1', id := 'source', reference_id := 'source',
    max_pairs := 100000000, flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        SELECT l.zero + r.zero AS zero
        FROM imgmatch_check_verb('matches', radius, hash_type, tbl, id, []) AS l, imgmatch_check_call(
            'matches', hash_type, reference, reference_id, [], tbl_name := 'reference', id_name := 'reference_id'
        ) AS r
    ),
    imgmatch_queries AS MATERIALIZED (FROM imgmatch_rows(hash_type, tbl, id, flat)),
    imgmatch_references AS MATERIALIZED (FROM imgmatch_rows(hash_type, reference, reference_id, flat)),
    distinct_queries AS MATERIALIZED (
        SELECT words, min(row) AS row, count(*) AS n_rows FROM imgmatch_queries WHERE twin IS NULL GROUP BY words
    ),
    distinct_references AS MATERIALIZED (
        SELECT words, min(row) AS row, count(*) AS n_rows FROM imgmatch_references WHERE twin IS NULL GROUP BY words
    ),
    near AS MATERIALIZED (FROM imgmatch_cross_pairs(radius, 'distinct_queries', 'distinct_references')),
    -- Identical files with little to see.
    twins AS (
        SELECT l.row AS query_row, r.row AS reference_row, 0::USMALLINT AS distance
        FROM imgmatch_queries AS l JOIN imgmatch_references AS r ON l.digest = r.digest
        WHERE l.twin IS NOT NULL AND r.twin IS NOT NULL
    ),
    counted AS MATERIALIZED (
        SELECT n_near + n_twins AS n_pairs
        FROM (
            SELECT coalesce(sum(l.n_rows * r.n_rows), 0) AS n_near
            FROM near
            JOIN distinct_queries AS l ON l.row = query_row
            JOIN distinct_references AS r ON r.row = reference_row
        ), (
            SELECT coalesce(sum(l.n_rows * r.n_rows), 0) AS n_twins
            FROM (SELECT digest, count(*) AS n_rows FROM imgmatch_queries WHERE twin IS NOT NULL GROUP BY digest) AS l
            JOIN (SELECT digest, count(*) AS n_rows FROM imgmatch_references WHERE twin IS NOT NULL GROUP BY digest)
                AS r ON l.digest = r.digest
        )
    ),
    checked AS MATERIALIZED (
        SELECT CASE WHEN n_pairs > max_pairs THEN error(format(
            'matches: {} pairs, more than max_pairs {}. Hint: a smaller radius, or another max_pairs.',
            n_pairs, max_pairs)) ELSE imgmatch_checked.zero END AS zero
        FROM counted, imgmatch_checked
    ),
    query_rows AS (
        SELECT imgmatch_queries.row, distinct_queries.row AS first_row
        FROM imgmatch_queries JOIN distinct_queries ON imgmatch_queries.words = distinct_queries.words
        WHERE twin IS NULL
    ),
    reference_rows AS (
        SELECT imgmatch_references.row, distinct_references.row AS first_row
        FROM imgmatch_references JOIN distinct_references ON imgmatch_references.words = distinct_references.words
        WHERE twin IS NULL
    ),
    pairs AS (
        SELECT l.row AS query_row, r.row AS reference_row, distance
        FROM near JOIN query_rows AS l ON l.first_row = query_row
        JOIN reference_rows AS r ON r.first_row = reference_row
        UNION ALL
        FROM twins
    )
    SELECT l.key AS query_id, r.key AS reference_id, distance
    FROM (SELECT query_row, reference_row, distance FROM pairs, checked WHERE zero = 0)
    JOIN imgmatch_queries AS l ON l.row = query_row
    JOIN imgmatch_references AS r ON r.row = reference_row
    ORDER BY query_row, distance, reference_row;

COMMENT ON MACRO TABLE matches IS
    'matches(tbl, radius, reference := ''hashes'', hash_type := ''bmh1'', id := ''source'', reference_id := '
    '''source'', max_pairs := 100000000, flat := ''identical''): every row of tbl with the rows of reference '
    'within radius bits, nearest first: query_id, reference_id, distance. Example: FROM matches(''today.parquet'', '
    '24, id := ''path'')';

COMMENT ON MACRO TABLE matches IS
    'matches(tbl, radius, reference := ''hashes'', hash_type := ''bmh1'', id := ''source'', '
    'reference_id := ''source'', max_pairs := 100000000, flat := ''identical''): every row of tbl with the rows of '
    'reference within radius bits, nearest first: query_id, reference_id, distance. Example: FROM '
    'matches(''today.parquet'', 24, id := ''path'')';
