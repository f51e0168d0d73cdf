-- One row of each cluster of near-duplicates, with the others of its cluster. Exact.
--
--   remove_duplicates(radius, hash_type := 'bmh1', tbl := 'hashes', flat := 'identical')
--
--   radius     the maximum Hamming distance between two near-duplicates, in bits, inclusive
--   hash_type, tbl, flat: as for near_duplicates
--
-- Columns: removed_records STRUCT(the table's columns)[], the other rows of the cluster in order, an empty list if
-- there are none; and those of the table, hashes last. The first row of each cluster is kept; rows come in order. Rows
-- whose hash is NULL are kept. An error if the table has a column named removed_records.
--
--   FROM remove_duplicates(24);
--   CREATE TABLE unique_photos AS SELECT * EXCLUDE removed_records FROM remove_duplicates(4, 'phash');
--
-- Needs the macros of near_duplicates.sql and duplicate_clusters.sql.

CREATE OR REPLACE MACRO remove_duplicates(
    radius, hash_type := 'bmh1', tbl := 'hashes', flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_verb('remove_duplicates', radius, hash_type, tbl, NULL, ['removed_records'])
    ),
    imgmatch_found AS MATERIALIZED (FROM imgmatch_clusters(radius, hash_type, tbl, flat)),
    named AS (SELECT COLUMNS(lambda name: lower(name) <> 'removed_records') FROM query_table(tbl)),
    numbered AS (
        SELECT imgmatch_record AS record, (row_number() OVER () - 1)::UINTEGER AS row FROM named AS imgmatch_record
    ),
    clusters AS MATERIALIZED (
        SELECT numbered.row, record, coalesce(representative, numbered.row) AS representative
        FROM numbered LEFT JOIN imgmatch_found USING (row)
    ),
    removed AS (
        SELECT representative, list(record ORDER BY row) AS records
        FROM clusters WHERE row <> representative GROUP BY representative
    ),
    kept AS (
        SELECT record, row, coalesce(records, []) AS removed_records
        FROM (FROM clusters WHERE row = representative) LEFT JOIN removed USING (representative)
    ),
    flat AS (SELECT removed_records, unnest(record), row AS imgmatch_row, NULL AS imgmatch_none FROM kept),
    arranged AS (
        SELECT
            COLUMNS(lambda name: NOT imgmatch_is_last(lower(name))),
            COLUMNS(lambda name: imgmatch_is_last(lower(name)))
        FROM flat
    )
    SELECT arranged.* EXCLUDE (imgmatch_row, imgmatch_none)
    FROM arranged, imgmatch_checked WHERE zero = 0 ORDER BY imgmatch_row;

COMMENT ON MACRO TABLE remove_duplicates IS
    'remove_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', flat := ''identical''): the kept row of '
    'each cluster, with removed_records, the others. Example: FROM remove_duplicates(24)';

COMMENT ON MACRO TABLE remove_duplicates IS
    'remove_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', flat := ''identical''): the kept row of '
    'each cluster, with removed_records, the others. Example: FROM remove_duplicates(24)';
