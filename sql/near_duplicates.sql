-- Near-duplicates: every pair of rows whose hashes are within a radius. Exact.
--
--   near_duplicates(radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', max_pairs := 100000000,
--                   flat := 'identical')
--
--   radius     the maximum Hamming distance, in bits, inclusive: 0 to 64 for phash, 0 to 961 for bmh1
--   hash_type  the column of hashes: 'phash' (UBIGINT, or the same 64 bits as BIGINT, HUGEINT or DECIMAL) or 'bmh1'
--              (BLOB). Rows where it is NULL are in no pair.
--   tbl        any table, view, common table expression or file that has the column, by name
--   id         the column whose values identify the rows, in a store its key. NULL: row numbers, from 0
--   max_pairs  the maximum number of pairs. More are an error, before they fill the memory
--   flat       'identical': images with little to see match identical files only. These are rows whose column quality
--              (UTINYINT) is below 50, or where that is NULL or absent have a hash that only blank images have; and
--              files are identical where the column sha256 (BLOB, or hexadecimal text) is equal. 'match': their hashes
--              are compared as those of others.
--
-- Columns: left_id, right_id (the left row is the one that comes first), distance USMALLINT (bits). Sorted by the row
-- numbers of left, then right; rows are numbered as the table gives them.
--
--   FROM near_duplicates(24);
--   FROM near_duplicates(4, 'phash', tbl := 'photos.parquet', id := 'path');
--
-- Equal hashes are compared once. Distinct hashes are compared if they agree in a band of bits: two hashes within the
-- radius are equal, or nearly equal, in at least one band (Norouzi, Punjani, Fleet, Fast Search in Hamming Space with
-- Multi-Index Hashing, CVPR 2012).

CREATE OR REPLACE MACRO imgmatch_n_bits
    (words UBIGINT) AS 64,
    (words BIT) AS bit_length(words);

CREATE OR REPLACE MACRO imgmatch_mask
    (words UBIGINT, mask_text) AS mask_text::BIT::UBIGINT,
    (words BIT, mask_text) AS mask_text::BIT;

-- The key of a hash in a band: rows with equal keys are compared. Only 64-bit hashes are flipped.
CREATE OR REPLACE MACRO imgmatch_key
    (band, words UBIGINT, mask, flip) AS hash(band, xor(words & mask, flip)),
    (band, words BIT, mask, flip) AS hash(band, words & mask);

CREATE OR REPLACE MACRO imgmatch_check_radius(radius, max_radius) AS CASE
    WHEN radius BETWEEN 0 AND max_radius AND radius = floor(radius) THEN radius::INTEGER
    ELSE error(format(
        'radius must be a whole number of bits from 0 to {}, got {}. Hint: 0 finds equal hashes, {} edited copies.',
        max_radius, coalesce(radius::VARCHAR, 'NULL'), imgmatch_near_text()))
END;

-- As imgmatch_check_call, for a verb with a radius.
CREATE OR REPLACE MACRO imgmatch_check_verb(verb, radius, hash_type, tbl, id, taken) AS TABLE
    SELECT CASE WHEN zero = 0 THEN
        imgmatch_check_radius(radius, imgmatch_max_radius(hash_type::VARCHAR)) * 0
    END AS zero
    FROM imgmatch_check_call(verb, hash_type, tbl, id, taken);

-- The number of bands that finds all pairs fastest. NULL is a scan: one band without bits, in which all hashes are
-- equal. Measured: three bands of 21 bits are fastest for 200,000 phashes from radius 2 to 8 (8: 1.8 s, nine bands
-- without flips 15 s). For 20,000 bmh1 of photo crops within 96 bits, bands take 16 s and the scan 34 s.
CREATE OR REPLACE MACRO imgmatch_n_bands
    (words UBIGINT, radius) AS CASE
        WHEN imgmatch_check_radius(radius, imgmatch_max_radius_of_bits(64)) <= 8 THEN least(radius + 1, 3)
        WHEN radius <= 15 THEN 4
    END,
    (words BIT, radius) AS CASE
        WHEN imgmatch_check_radius(radius, imgmatch_max_radius_of_bits(bit_length(words))) <= 96 THEN radius + 1
    END;

CREATE OR REPLACE MACRO imgmatch_check_flat(flat) AS CASE
    WHEN flat IN ('identical', 'match') THEN flat = 'identical'
    ELSE error(format('flat must be ''identical'' or ''match'', got {}. Hint: ''match'' compares images with little to '
        'see by their hashes.', coalesce(flat::VARCHAR, 'NULL')))
END;

-- The quality of a row, and its digest as text. A quality of another type is not one of this package.
CREATE OR REPLACE MACRO imgmatch_quality(quality) AS
    CASE WHEN typeof(quality) = 'UTINYINT' THEN try_cast(quality AS UTINYINT) END;

CREATE OR REPLACE MACRO imgmatch_digest(digest) AS
    CASE WHEN typeof(digest) = 'VARCHAR' THEN lower(digest::VARCHAR) ELSE digest::VARCHAR END;

-- What rows with little to see are equal by, whatever their hashes: a digest, or the number of a row that has none.
-- NULL for other rows.
CREATE OR REPLACE MACRO imgmatch_twin(hash_type, words, quality, digest, row_number, flat) AS CASE
    WHEN imgmatch_check_flat(flat)
        AND coalesce(quality < 50, list_contains(imgmatch_flat_counts(hash_type::VARCHAR), bit_count(words)))
        THEN coalesce('sha256 ' || digest, 'row ' || row_number)
END;

-- Hashes, or an error if they have the width of another kind.
CREATE OR REPLACE MACRO imgmatch_check_width(words, n_bits, hash_type) AS CASE
    WHEN n_bits = coalesce(imgmatch_n_chars(hash_type::VARCHAR), n_bits) THEN words
    ELSE error(format('the column {} has a hash of {} bits, and a {} has {}. Hint: hash_type names the kind of hash.',
        hash_type, n_bits, hash_type, imgmatch_n_chars(hash_type::VARCHAR)))
END;

-- The rows of a table that have a hash: row UINTEGER (from 0), words (all bits 0 with a twin), key, twin and digest
-- VARCHAR. Here and below, the table is read outside of common table expressions whose names it may have, because they
-- would hide it. If a column does not exist, another is read in its place, and imgmatch_check_call raises the error.
CREATE OR REPLACE MACRO imgmatch_rows(hash_type, tbl, id, flat) AS TABLE
    WITH numbered AS (
        SELECT *, (row_number() OVER () - 1)::UINTEGER AS imgmatch_row, NULL AS imgmatch_none FROM query_table(tbl)
    ),
    hashed AS (
        SELECT
            imgmatch_row AS row,
            imgmatch_words(COLUMNS(imgmatch_hash_column((*), hash_type))) AS words,
            COLUMNS(imgmatch_one(list_filter((*), lambda name: name <> 'imgmatch_none'), coalesce(id, 'imgmatch_row')))
                AS key,
            imgmatch_quality(COLUMNS(imgmatch_one((*), 'quality'))) AS quality,
            imgmatch_digest(COLUMNS(imgmatch_one((*), 'sha256'))) AS digest
        FROM numbered
    )
    SELECT row, CASE WHEN twin IS NULL THEN words ELSE xor(words, words) END AS words, key, digest, twin
    FROM (
        SELECT
            row,
            imgmatch_check_width(words, imgmatch_n_bits(words), hash_type) AS words,
            key,
            digest,
            imgmatch_twin(hash_type, words, quality, digest, row, flat) AS twin
        FROM hashed WHERE words IS NOT NULL
    );

-- The bands of a plan and their flips: band, flip UBIGINT, mask (0/1 string). Two hashes within the radius differ in
-- at least one band by exactly one of its flips.
CREATE OR REPLACE MACRO imgmatch_probes(plan) AS TABLE
    WITH RECURSIVE bands AS (
        SELECT
            band,
            n_bits,
            -- Neighbouring bits of a bmh1 are correlated and would make huge buckets. So would bits at a stride near
            -- 31, the width of its image. Multiples of the inverse plastic number, modulo 1, spread the bits of a band.
            -- On 200,000 photo crops within 16 bits they make 0.7 million candidates, slices 3,356 million, strides 2.4
            -- million.
            list_filter(range(n_bits), lambda bit: floor(bit * 0.7548776662466927 % 1 * n_bands) = band) AS positions,
            (n_differing + n_bands - band) // n_bands - 1 AS n_flips
        FROM query_table(plan), LATERAL (SELECT unnest(range(coalesce(n_bands, 1)::BIGINT)) AS band)
    ),
    flips(band, flip, later, n_flips) AS (
        SELECT band, 0::UBIGINT, positions, n_flips FROM bands
        UNION ALL
        SELECT band, flip | (1::UBIGINT << (63 - later[i])), later[i + 1:], n_flips - 1
        FROM flips, LATERAL (SELECT unnest(range(1, len(later) + 1)) AS i)
        WHERE n_flips > 0
    )
    SELECT
        band,
        flip,
        array_to_string(
            list_transform(range(n_bits), lambda bit: CASE WHEN list_contains(positions, bit) THEN '1' ELSE '0' END), ''
        ) AS mask
    FROM flips JOIN bands USING (band);

-- The pairs of distinct hashes within the radius: left_row, right_row, distance. hashed has the columns row and words.
CREATE OR REPLACE MACRO imgmatch_pairs(radius, hashed) AS TABLE
    WITH sample AS MATERIALIZED (SELECT words FROM query_table(hashed) LIMIT 1),
    plan AS (
        SELECT imgmatch_n_bits(words) AS n_bits, imgmatch_n_bands(words, radius) AS n_bands, radius AS n_differing
        FROM sample
    ),
    probes AS MATERIALIZED (
        SELECT band, flip, imgmatch_mask(words, mask) AS mask FROM imgmatch_probes('plan'), sample
    ),
    stored AS (
        SELECT row, words, imgmatch_key(band, words, mask, flip) AS key
        FROM query_table(hashed), (FROM probes WHERE flip = 0)
    ),
    probed AS (SELECT row, words, imgmatch_key(band, words, mask, flip) AS key FROM query_table(hashed), probes)
    SELECT DISTINCT l.row AS left_row, r.row AS right_row, bit_count(xor(l.words, r.words))::USMALLINT AS distance
    FROM probed AS l JOIN stored AS r USING (key)
    WHERE l.row < r.row AND bit_count(xor(l.words, r.words)) <= coalesce(radius, 0);

CREATE OR REPLACE MACRO near_duplicates(
    radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', max_pairs := 100000000, flat := 'identical'
) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_verb('near_duplicates', radius, hash_type, tbl, id, [])
    ),
    hashed AS MATERIALIZED (FROM imgmatch_rows(hash_type, tbl, id, flat)),
    distinct_hashes AS MATERIALIZED (
        SELECT words, twin, min(row) AS row, count(*) AS n_rows FROM hashed GROUP BY words, twin
    ),
    compared AS (SELECT words, row FROM distinct_hashes WHERE twin IS NULL),
    near AS MATERIALIZED (
        FROM imgmatch_pairs(radius, 'compared')
        UNION ALL
        SELECT row, row, 0::USMALLINT FROM distinct_hashes WHERE n_rows > 1
    ),
    counted AS MATERIALIZED (
        SELECT sum(CASE WHEN l.row = r.row THEN l.n_rows * (l.n_rows - 1) // 2 ELSE l.n_rows * r.n_rows END) AS n_pairs
        FROM near JOIN distinct_hashes AS l ON l.row = left_row JOIN distinct_hashes AS r ON r.row = right_row
    ),
    checked AS MATERIALIZED (
        SELECT CASE WHEN n_pairs > max_pairs THEN error(format(
            'near_duplicates: {} pairs, more than max_pairs {}. Hint: a smaller radius, or duplicate_clusters, which '
            'makes no pairs of equal hashes.', n_pairs, max_pairs)) ELSE imgmatch_checked.zero END AS zero
        FROM counted, imgmatch_checked
    ),
    members AS MATERIALIZED (
        SELECT hashed.row, hashed.key, distinct_hashes.row AS first_row
        FROM hashed JOIN distinct_hashes
            ON hashed.words = distinct_hashes.words AND hashed.twin IS NOT DISTINCT FROM distinct_hashes.twin
    )
    SELECT
        CASE WHEN l.row < r.row THEN l.key ELSE r.key END AS left_id,
        CASE WHEN l.row < r.row THEN r.key ELSE l.key END AS right_id,
        distance
    FROM (SELECT left_row, right_row, distance FROM near, checked WHERE zero = 0) AS near
    JOIN members AS l ON l.first_row = left_row
    JOIN members AS r ON r.first_row = right_row
    WHERE l.row < r.row OR left_row < right_row
    ORDER BY least(l.row, r.row), greatest(l.row, r.row);

COMMENT ON MACRO TABLE near_duplicates IS
    'near_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', max_pairs := 100000000, '
    'flat := ''identical''): every pair of rows within radius bits: left_id, right_id, distance. Example: FROM '
    'near_duplicates(4, ''phash'')';

COMMENT ON MACRO TABLE near_duplicates IS
    'near_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', max_pairs := 100000000, '
    'flat := ''identical''): every pair of rows within radius bits: left_id, right_id, distance. Example: FROM '
    'near_duplicates(4, ''phash'')';
