-- The rows of a table ranked by their distance to one hash, nearest first. Exact.
--
--   rank_images(query, k := NULL, tbl := 'hashes')
--
--   query  the hash to rank by: a BLOB ranks by the column bmh1, an integer by the column phash
--   k      the largest number of rows; NULL is all
--   tbl    any table, view, common table expression or file that has the column, by name
--
-- Columns: those of the table, and distance USMALLINT (bits), rank UINTEGER (1 is the nearest). Ties keep the order of
-- the rows; rows whose hash is NULL come last, with NULL for both. Columns of the table of these names are replaced.
--
--   FROM rank_images((SELECT bmh1 FROM hashes WHERE source = 'one.jpg'), 10);
--   FROM rank_images(from_bits('0110...', 'phash'), 10, tbl := 'photos.parquet');
--
-- Needs the macros of hashes.sql.

CREATE OR REPLACE MACRO imgmatch_ranked(query, hash_type, k, tbl) AS TABLE
    WITH imgmatch_asked AS MATERIALIZED (SELECT query AS imgmatch_query),
    named AS (
        SELECT COLUMNS(lambda name: name NOT IN ('distance', 'rank')), (row_number() OVER ())::UINTEGER AS imgmatch_row
        FROM query_table(tbl)
    ),
    measured AS (
        SELECT
            *,
            hamming(
                COLUMNS(lambda hash_column: hash_column = hash_type), (SELECT imgmatch_query FROM imgmatch_asked)
            ) AS distance
        FROM named
    ),
    nearest AS (FROM measured ORDER BY distance NULLS LAST, imgmatch_row LIMIT k)
    SELECT
        * EXCLUDE imgmatch_row,
        CASE WHEN distance IS NOT NULL
            THEN (row_number() OVER (ORDER BY distance NULLS LAST, imgmatch_row))::UINTEGER
        END AS rank
    FROM nearest ORDER BY distance NULLS LAST, imgmatch_row;

-- The overload is chosen by the type of the query while the call is bound, so that the other column need not exist.
CREATE OR REPLACE MACRO rank_images
    (query HUGEINT, k := NULL, tbl := 'hashes') AS TABLE (
        FROM imgmatch_ranked(query, 'phash', k, tbl)
    ),
    (query BLOB, k := NULL, tbl := 'hashes') AS TABLE (
        FROM imgmatch_ranked(query, 'bmh1', k, tbl)
    );
