-- The rows of a table ranked by their distance to one hash, nearest first. Exact.
--
--   rank_images(query, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical')
--
--   query      the hash to rank by: a BLOB or a number (a negative one stands for the same 64 bits). NULL, such as
--              the hash of a row that does not exist, gives no rows.
--   k          the maximum number of rows; NULL is all
--   tbl        any table, view, common table expression or file that has the column, by name
--   hash_type  the kind of hash that the query is; NULL is bmh1 for a BLOB, phash for a number
--   flat       'identical': rows with little to see, as for near_duplicates, have no rank. 'match': they are ranked
--
-- Columns: rank UINTEGER (1 is the nearest), distance USMALLINT (bits), and those of the table, hashes last. Ties keep
-- the order of the rows; rows whose hash is NULL, and those with
-- little to see, come last, with NULL for both. An error if the table has columns of
-- these names.
--
--   FROM rank_images((SELECT bmh1 FROM hashes WHERE source = 'one.jpg'), 10);
--   FROM rank_images(from_bits('0110...', 'phash'), 10, tbl := 'photos.parquet');
--
-- Needs the macros of near_duplicates.sql.

CREATE OR REPLACE MACRO imgmatch_ranked(query, hash_type, k, tbl, flat) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_call('rank_images', hash_type, tbl, NULL, ['distance', 'rank'])
    ),
    imgmatch_queried AS MATERIALIZED (SELECT query AS imgmatch_query),
    imgmatch_numbered AS (
        -- If there is no column of hashes, imgmatch_none is read in its place, so it has the type of the query, and
        -- imgmatch_checked raises the error.
        SELECT *, (row_number() OVER ())::UINTEGER AS imgmatch_row, CASE WHEN false THEN query END AS imgmatch_none
        FROM query_table(tbl)
    ),
    named AS (
        SELECT
            COLUMNS(lambda name: lower(name) NOT IN ('distance', 'rank') AND NOT imgmatch_is_last(lower(name))),
            COLUMNS(lambda name: imgmatch_is_last(lower(name)))
        FROM imgmatch_numbered
    ),
    read AS (
        SELECT
            hamming(
                imgmatch_comparable(COLUMNS(imgmatch_hash_column((*), hash_type))),
                (SELECT imgmatch_query FROM imgmatch_queried)
            ) AS imgmatch_distance,
            imgmatch_words(COLUMNS(imgmatch_hash_column((*), hash_type))) AS imgmatch_words,
            imgmatch_quality(COLUMNS(imgmatch_one((*), 'quality'))) AS imgmatch_quality,
            *
        FROM named
        WHERE (SELECT imgmatch_query FROM imgmatch_queried) IS NOT NULL
    ),
    measured AS (
        SELECT
            CASE WHEN imgmatch_twin(hash_type, imgmatch_words, imgmatch_quality, NULL, 0, flat) IS NULL
                THEN imgmatch_distance
            END AS distance,
            * EXCLUDE (imgmatch_distance, imgmatch_words, imgmatch_quality)
        FROM read
    ),
    nearest AS (FROM measured ORDER BY distance NULLS LAST, imgmatch_row LIMIT k)
    SELECT
        CASE WHEN distance IS NOT NULL
            THEN (row_number() OVER (ORDER BY distance NULLS LAST, imgmatch_row))::UINTEGER
        END AS rank,
        nearest.* EXCLUDE (imgmatch_row, imgmatch_none)
    FROM nearest, imgmatch_checked WHERE zero = 0 ORDER BY distance NULLS LAST, imgmatch_row;

CREATE OR REPLACE MACRO imgmatch_no_query(query) AS error(format(
    'rank_images: query must be a hash, a number (phash) or a BLOB (bmh1), got {:.80}. Hint: (SELECT bmh1 FROM hashes '
    'WHERE source = ''...''), or from_bits(bits, hash_type).', query));

-- DuckDB chooses the overload by the type of the query when it binds the call, so the other hash column need not exist.
CREATE OR REPLACE MACRO rank_images
    (query HUGEINT, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical') AS TABLE (
        FROM imgmatch_ranked(imgmatch_words(query), coalesce(hash_type, 'phash'), k, tbl, flat)
    ),
    (query DECIMAL(38, 18), k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical') AS TABLE (
        FROM imgmatch_ranked(imgmatch_words(query), coalesce(hash_type, 'phash'), k, tbl, flat)
    ),
    (query BLOB, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical') AS TABLE (
        FROM imgmatch_ranked(query, coalesce(hash_type, 'bmh1'), k, tbl, flat)
    ),
    (query VARCHAR, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical') AS TABLE (
        SELECT NULL::UINTEGER AS rank, NULL::USMALLINT AS distance, * FROM query_table(tbl)
        WHERE query IS NOT NULL AND imgmatch_no_query(query) IS NULL
    );

COMMENT ON MACRO TABLE rank_images IS
    'rank_images(query, k := NULL, tbl := ''hashes'', hash_type := NULL, flat): the nearest rows, with rank, distance';
