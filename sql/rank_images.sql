-- The rows of a table ranked by their distance to one hash, nearest first. Exact.
--
--   rank_images(query, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source')
--
--   query      what to rank by:
--              text: the value of id in a row, such as the path of a stored image; or else a hash, as hexadecimal
--              digits or as a string of 0 and 1. An error for other text, for a row without a hash, and for NULL.
--              A BLOB or a number (a negative one stands for the same 64 bits): a hash. NULL, such as the hash of a row
--              that does not exist, gives no rows.
--   k          the maximum number of rows, at least 1; NULL is all
--   tbl        any table, view, common table expression or file that has the column, by name
--   hash_type  the kind of hash to compare. NULL is bmh1 for a BLOB, phash for a number; for the value of an id bmh1,
--              or else the first kind that the table has; for digits the kind in the table that has as many.
--   flat       'identical': rows with little to see, as for near_duplicates, have no rank. 'match': they are ranked
--   id         the column whose values identify the rows, in a store its key. Only read where query is text
--
-- Columns: rank UINTEGER (1 is the nearest), distance USMALLINT (bits), and those of the table, hashes last. Ties keep
-- the order of the rows; rows whose hash is NULL, and those with little to see, come last, with NULL for both. An error
-- if the table has columns of these names.
--
--   FROM rank_images('photos/beach.jpg', 10);
--   FROM rank_images('b9b9534546d1a2e9', 10, tbl := 'photos.parquet');
--   FROM rank_images((SELECT bmh1 FROM hashes ORDER BY size DESC LIMIT 1), 10);
--
-- Needs the macros of near_duplicates.sql.

CREATE OR REPLACE MACRO imgmatch_check_k(k) AS CASE
    WHEN k IS NULL OR regexp_full_match(k::VARCHAR, '0*[1-9][0-9]{0,17}') THEN k::BIGINT
    ELSE error(format(
        'rank_images: k must be a whole number from 1, or NULL, got {}. Hint: NULL ranks all rows.', k::VARCHAR))
END;

-- The first rows of a ranking. measured has the columns distance, imgmatch_row, imgmatch_none and those of the result.
CREATE OR REPLACE MACRO imgmatch_nearest(measured, k) AS TABLE
    WITH nearest AS (
        FROM query_table(measured) ORDER BY distance NULLS LAST, imgmatch_row LIMIT imgmatch_check_k(k)
    )
    SELECT
        CASE WHEN distance IS NOT NULL
            THEN (row_number() OVER (ORDER BY distance NULLS LAST, imgmatch_row))::UINTEGER
        END AS rank,
        nearest.* EXCLUDE (imgmatch_row, imgmatch_none)
    FROM nearest ORDER BY distance NULLS LAST, imgmatch_row;

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
    )
    SELECT ranked.* FROM imgmatch_nearest('measured', k) AS ranked, imgmatch_checked WHERE zero = 0
    ORDER BY rank NULLS LAST;

-- The names of the columns that a query of text may be compared with, as a pattern. A list would be read once for each
-- use, and DuckDB allows only equal COLUMNS in one expression.
CREATE OR REPLACE MACRO imgmatch_kind_pattern(hash_type) AS format('(?i)^({}|imgmatch_none)$', array_to_string(
    list_filter(imgmatch_hash_types(), lambda name: name = coalesce(hash_type::VARCHAR, name)
        AND NOT list_contains(imgmatch_vote_types(), name)), '|'));

-- The value of a hash column with the name of the column.
CREATE OR REPLACE MACRO imgmatch_named_hash
    (name, hash UBIGINT) AS {'kind': lower(name), 'number': hash, 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash BIGINT) AS
        {'kind': lower(name), 'number': imgmatch_words(hash), 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash HUGEINT) AS
        {'kind': lower(name), 'number': imgmatch_words(hash), 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash UHUGEINT) AS
        {'kind': lower(name), 'number': imgmatch_words(hash), 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash DECIMAL(38, 18)) AS
        {'kind': lower(name), 'number': imgmatch_words(hash), 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash DOUBLE) AS
        {'kind': lower(name), 'number': imgmatch_words(hash), 'bytes': NULL::BLOB, 'text': NULL::VARCHAR},
    (name, hash BLOB) AS {'kind': lower(name), 'number': NULL::UBIGINT, 'bytes': hash, 'text': NULL::VARCHAR},
    (name, hash VARCHAR) AS {'kind': lower(name), 'number': NULL::UBIGINT, 'bytes': NULL::BLOB, 'text': hash};

-- The hash of a kind that text is, and its form: 1 for characters of 0 and 1, 2 for hexadecimal digits.
CREATE OR REPLACE MACRO imgmatch_hash_of_text(query, kind) AS list_transform(
    list_transform([regexp_replace(query, '^\s+|\s+$', '', 'g')], lambda text: {
        'text': text, 'digits': regexp_replace(text, '^0[xX]', ''), 'n_chars': imgmatch_n_chars(kind)
    }),
    lambda given: CASE
        WHEN length(given.text) = given.n_chars AND regexp_full_match(given.text, '[01]*') THEN {
            'form': 1,
            'kind': kind,
            'number': CASE WHEN imgmatch_hash_form(kind) = 'number' THEN given.text::BIT::UBIGINT END,
            'bytes': CASE WHEN imgmatch_hash_form(kind) = 'bytes' THEN given.text::BIT::BLOB END
        }
        WHEN 4 * length(given.digits) = given.n_chars AND regexp_full_match(given.digits, '[0-9a-fA-F]*') THEN {
            'form': 2,
            'kind': kind,
            'number': CASE WHEN imgmatch_hash_form(kind) = 'number' THEN ('0x' || given.digits)::UBIGINT END,
            'bytes': CASE WHEN imgmatch_hash_form(kind) = 'bytes' THEN unhex(given.digits) END
        }
    END)[1];

-- The hash that text stands for, one row: kind, number UBIGINT or bytes BLOB. Or an error.
CREATE OR REPLACE MACRO imgmatch_text_query(query, hash_type, tbl, id) AS TABLE
    WITH imgmatch_checked AS MATERIALIZED (
        FROM imgmatch_check_call('rank_images', hash_type, tbl, NULL, ['distance', 'rank'], any_kind := true)
    ),
    imgmatch_fields AS (SELECT *, NULL::UBIGINT AS imgmatch_none FROM query_table(tbl)),
    imgmatch_keyed AS (
        SELECT
            COLUMNS(imgmatch_one((*), coalesce(id, 'imgmatch_none')))::VARCHAR AS imgmatch_key,
            imgmatch_named_hash(
                alias(COLUMNS(imgmatch_kind_pattern(hash_type))), COLUMNS(imgmatch_kind_pattern(hash_type))
            ) AS imgmatch_named
        FROM imgmatch_fields
    ),
    id_columns AS (
        SELECT list_value(*COLUMNS(*)) AS names
        FROM (
            SELECT alias(COLUMNS(lambda name: lower(name) IN (lower(id), 'imgmatch_none')))
            FROM (VALUES (0)) LEFT JOIN (FROM imgmatch_fields LIMIT 0) ON true
        )
    ),
    -- The kinds of the table, in the order in which they are chosen.
    available AS (
        SELECT list_filter(imgmatch_hash_types(), lambda kind: list_contains(names, kind)) AS kinds
        FROM (
            SELECT list_value(*COLUMNS(*)) AS names
            FROM (
                SELECT lower(alias(COLUMNS(imgmatch_kind_pattern(hash_type))))
                FROM (VALUES (0)) LEFT JOIN (FROM imgmatch_fields LIMIT 0) ON true
            )
        )
    ),
    texts AS (SELECT query::VARCHAR AS given, kinds, len(names) > 1 AS has_id FROM available, id_columns),
    stored AS (
        SELECT count(*) AS n_rows, list(DISTINCT hash) AS hashes
        FROM (
            SELECT list_filter(hashes, lambda one: one.kind = kinds[1])[1] AS hash
            FROM (SELECT imgmatch_key, list_value(*COLUMNS('^imgmatch_named')) AS hashes FROM imgmatch_keyed), texts
            WHERE imgmatch_key = given
        )
    ),
    parsed AS (
        SELECT list_filter(
            list_transform(kinds, lambda kind: imgmatch_hash_of_text(given, kind)), lambda one: one IS NOT NULL
        ) AS hashes
        FROM texts
    ),
    best AS (
        SELECT list_filter(
            hashes, lambda one: one.form = list_min(list_transform(hashes, lambda other: other.form))) AS hashes
        FROM parsed
    ),
    found AS (
        SELECT CASE
            WHEN zero <> 0 THEN NULL
            WHEN given IS NULL THEN error('rank_images: the query is NULL, an empty text. Hint: pass the value of '
                || 'a key, or (SELECT bmh1 FROM hashes WHERE ...), which ranks nothing where there is no row.')
            WHEN len(stored.hashes) > 1 THEN error(format(
                'rank_images: {} rows with different hashes have {} {:.80}. Hint: pass the hash, as (SELECT ...).',
                n_rows, id, given))
            WHEN stored.hashes[1].text IS NOT NULL THEN imgmatch_not_text(stored.hashes[1].text)
            WHEN stored.hashes[1].number IS NOT NULL OR stored.hashes[1].bytes IS NOT NULL THEN {
                'kind': stored.hashes[1].kind, 'number': stored.hashes[1].number, 'bytes': stored.hashes[1].bytes
            }
            WHEN n_rows > 0 THEN error(format(
                'rank_images: the row with {} {:.80} has no {}. Hint: rank by another row; in a store, status and '
                'detail say why.', id, given, kinds[1]))
            WHEN len(best.hashes) = 1 THEN {
                'kind': best.hashes[1].kind, 'number': best.hashes[1].number, 'bytes': best.hashes[1].bytes
            }
            WHEN len(best.hashes) > 1 THEN error(format(
                'rank_images: {:.80} may be a hash of several kinds: {}. Hint: hash_type := ''{}'' names the kind.',
                given, array_to_string(list_transform(best.hashes, lambda one: one.kind), ', '), best.hashes[1].kind))
            WHEN NOT has_id THEN error(format(
                'rank_images: query is text, {:.80}, which is not the digits of a hash, and the table has no column '
                '{}. Hint: pass the column of keys as id, or a hash.', given, coalesce(id, 'NULL')))
            ELSE error(format(
                'rank_images: no row has {} {:.80}, and it is not a hash of {} either. Hint: SELECT {} FROM {} lists '
                'what there is; a hash is a number, a BLOB, or text of hexadecimal digits or of 0 and 1.',
                id, given, array_to_string(kinds, ' or '), id, tbl))
        END AS hash
        FROM texts, stored, best, imgmatch_checked
    )
    SELECT hash.kind AS kind, hash.number AS number, hash.bytes AS bytes FROM found;

-- The distance of a row to a query of text, where the column is of the kind of the query and has much to see.
CREATE OR REPLACE MACRO imgmatch_distance_to
    (hash UBIGINT, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND imgmatch_twin(lower(name), hash, quality, NULL, 0, flat) IS NULL
            THEN bit_count(xor(hash, number))::USMALLINT
    END,
    (hash HUGEINT, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND imgmatch_twin(lower(name), imgmatch_words(hash), quality, NULL, 0, flat) IS NULL
            THEN bit_count(xor(imgmatch_words(hash), number))::USMALLINT
    END,
    (hash UHUGEINT, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND imgmatch_twin(lower(name), imgmatch_words(hash), quality, NULL, 0, flat) IS NULL
            THEN bit_count(xor(imgmatch_words(hash), number))::USMALLINT
    END,
    (hash DECIMAL(38, 18), name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND imgmatch_twin(lower(name), imgmatch_words(hash), quality, NULL, 0, flat) IS NULL
            THEN bit_count(xor(imgmatch_words(hash), number))::USMALLINT
    END,
    (hash DOUBLE, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind THEN imgmatch_words(hash)::USMALLINT
    END,
    (hash BLOB, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND imgmatch_twin(lower(name), imgmatch_words(hash), quality, NULL, 0, flat) IS NULL
            THEN hamming(hash, bytes)
    END,
    (hash VARCHAR, name, quality, kind, number, bytes, flat) AS CASE
        WHEN lower(name) = kind AND hash IS NOT NULL THEN imgmatch_not_text(hash)::USMALLINT
    END;

CREATE OR REPLACE MACRO imgmatch_ranked_by_text(query, hash_type, k, tbl, flat, id) AS TABLE
    WITH imgmatch_queried AS MATERIALIZED (FROM imgmatch_text_query(query, hash_type, tbl, id)),
    imgmatch_numbered AS (
        SELECT *, (row_number() OVER ())::UINTEGER AS imgmatch_row, NULL::UBIGINT AS imgmatch_none
        FROM query_table(tbl)
    ),
    named AS (
        SELECT
            imgmatch_quality(COLUMNS(imgmatch_one((*), 'quality'))) AS imgmatch_quality,
            COLUMNS(lambda name: lower(name) NOT IN ('distance', 'rank') AND NOT imgmatch_is_last(lower(name))),
            COLUMNS(lambda name: imgmatch_is_last(lower(name)))
        FROM imgmatch_numbered
    ),
    read AS (
        SELECT
            imgmatch_distance_to(
                COLUMNS(imgmatch_kind_pattern(hash_type)), alias(COLUMNS(imgmatch_kind_pattern(hash_type))),
                imgmatch_quality, queried.kind, queried.number, queried.bytes, flat
            ) AS imgmatch_distance,
            named.*
        FROM named, imgmatch_queried AS queried
    ),
    measured AS (
        SELECT
            coalesce(*COLUMNS('^imgmatch_distance')) AS distance,
            COLUMNS(lambda name: NOT starts_with(name, 'imgmatch_distance') AND name <> 'imgmatch_quality')
        FROM read
    )
    FROM imgmatch_nearest('measured', k);

-- DuckDB chooses the overload by the type of the query when it binds the call, so the other hash column need not exist.
CREATE OR REPLACE MACRO rank_images
    (query HUGEINT, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source') AS TABLE (
        FROM imgmatch_ranked(imgmatch_words(query), coalesce(hash_type, 'phash'), k, tbl, flat)
    ),
    (query DECIMAL(38, 18), k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source')
    AS TABLE (
        FROM imgmatch_ranked(imgmatch_words(query), coalesce(hash_type, 'phash'), k, tbl, flat)
    ),
    (query BLOB, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source') AS TABLE (
        FROM imgmatch_ranked(query, coalesce(hash_type, 'bmh1'), k, tbl, flat)
    ),
    (query VARCHAR, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source') AS TABLE (
        FROM imgmatch_ranked_by_text(query, hash_type, k, tbl, flat, id)
    );

COMMENT ON MACRO TABLE rank_images IS
    'rank_images(query, k := NULL, tbl := ''hashes'', hash_type := NULL, flat := ''identical'', id := ''source''): '
    'the k rows nearest to a stored image or a hash, with rank and distance; query is a value of id, hexadecimal '
    'digits, 0 and 1, a number or a BLOB. Example: FROM rank_images(''photos/beach.jpg'', 10)';

COMMENT ON MACRO TABLE rank_images IS
    'rank_images(query, k := NULL, tbl := ''hashes'', hash_type := NULL, flat := ''identical'', id := ''source''): '
    'the k rows nearest to a stored image or a hash, with rank and distance; query is a value of id, hexadecimal '
    'digits, 0 and 1, a number or a BLOB. Example: FROM rank_images(''photos/beach.jpg'', 10)';
