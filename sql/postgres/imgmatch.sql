-- Near-duplicates in PostgreSQL 14 or later, without an extension. Exact, with the results of the Python verbs.
--
--   near_duplicates(radius, hash_type := 'bmh1', tbl := 'hashes', id := 'source', max_pairs := 100000000,
--                   flat := 'identical')            left_id, right_id, distance: every pair
--   copies(radius, hash_type, tbl, id, flat)        kept, copies, farthest, bytes, removed: one row for each cluster
--   matches(tbl, radius, reference := 'hashes', hash_type := 'bmh1', id := 'source', reference_id := 'source',
--           max_pairs, flat)                        query_id, reference_id, distance: nearest first for each row of tbl
--   rank_images(query, k := NULL, tbl := 'hashes', hash_type := NULL, flat := 'identical', id := 'source')
--                                                   rank, distance, key: the nearest rows to a stored key, to
--                                                   hexadecimal digits, to 0 and 1, or to a hash
--   imgmatch_hamming(a, b)                          the number of bits in which two hashes differ
--   imgmatch_bits(hash)                             a hash as a bit string
--   imgmatch_bands(bits)                            keys of its bands, for an index
--
-- A phash is a bigint with the same 64 bits, or bit(64). A bmh1 is a bytea of 121 bytes, or bit(968). Both are
-- columns of the name of their kind. tbl is a table or a view. Ids are returned as text; id := NULL numbers the rows
-- from 0.
--
-- A table of PostgreSQL has no order: rows count as sorted by id, text by its bytes, and without an id by their place
-- in the file. So the row of a cluster that is kept is that with the lowest id.
--
-- The functions read the whole table. For one hash, an index of bands finds the rows within radius 4 of phash or 24 of
-- bmh1: two hashes within a radius are equal in at least one of more bands than that.
--
--   CREATE INDEX ON hashes USING gin (imgmatch_bands(imgmatch_bits(phash)));
--   SELECT source FROM hashes
--   WHERE imgmatch_bands(imgmatch_bits(phash)) && imgmatch_bands(imgmatch_bits(5::bigint))
--     AND imgmatch_hamming(phash, 5) <= 4;

CREATE OR REPLACE FUNCTION imgmatch_bits(hash bigint) RETURNS varbit
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT hash::bit(64)::varbit $$;

CREATE OR REPLACE FUNCTION imgmatch_bits(hash bytea) RETURNS varbit
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT ('x' || encode(hash, 'hex'))::varbit $$;

CREATE OR REPLACE FUNCTION imgmatch_bits(hash varbit) RETURNS varbit
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT hash $$;

CREATE OR REPLACE FUNCTION imgmatch_bits(hash bit) RETURNS varbit
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT hash::varbit $$;

CREATE OR REPLACE FUNCTION imgmatch_hamming(a bit, b bit) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT bit_count(a # b)::integer $$;

CREATE OR REPLACE FUNCTION imgmatch_hamming(a bigint, b bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT bit_count(a::bit(64) # b::bit(64))::integer $$;

CREATE OR REPLACE FUNCTION imgmatch_hamming(a bytea, b bytea) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT bit_count(imgmatch_bits(a) # imgmatch_bits(b))::integer $$;

-- The bits of each band, as masks. Neighbouring bits of a bmh1 are correlated and would make huge buckets. Multiples of
-- the inverse plastic number, modulo 1, spread the bits of a band, as in DuckDB.
CREATE OR REPLACE FUNCTION imgmatch_masks(n_bits integer, n_bands integer) RETURNS varbit[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(mask ORDER BY band)
    FROM (
        SELECT band, string_agg(
            CASE WHEN n_bands = 1 THEN '0'
                WHEN floor((bit * 0.7548776662466927::float8 - floor(bit * 0.7548776662466927::float8)) * n_bands)
                    = band
                THEN '1' ELSE '0' END, '' ORDER BY bit)::varbit AS mask
        FROM generate_series(0, n_bands - 1) AS band, generate_series(0, n_bits - 1) AS bit
        GROUP BY band
    ) AS masks
$$;

-- The keys of a hash: one for each mask. Rows with an equal key are compared.
CREATE OR REPLACE FUNCTION imgmatch_keys(bits varbit, masks varbit[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(hashtextextended((bits & mask)::text, band)) FROM unnest(masks) WITH ORDINALITY AS m(mask, band)
$$;

-- The masks of the index, as constants: 5 bands of 64 bits, 25 of longer hashes.
DO $do$
BEGIN
    EXECUTE format($f$
        CREATE OR REPLACE FUNCTION imgmatch_index_masks(n_bits integer) RETURNS varbit[]
            LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
            $s$ SELECT CASE n_bits WHEN 64 THEN %L::varbit[] WHEN 968 THEN %L::varbit[] END $s$
    $f$, imgmatch_masks(64, 5), imgmatch_masks(968, 25));
END
$do$;

CREATE OR REPLACE FUNCTION imgmatch_bands(bits varbit) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT imgmatch_keys(bits, imgmatch_index_masks(length(bits)))
$$;

CREATE OR REPLACE FUNCTION imgmatch_n_chars(hash_type text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE hash_type WHEN 'bmh1' THEN 968 WHEN 'phash' THEN 64 END $$;

-- One band without bits, in which all hashes are equal, is a scan: for large radii it is the faster plan.
CREATE OR REPLACE FUNCTION imgmatch_n_bands(n_chars integer, radius integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN radius <= CASE n_chars WHEN 64 THEN 8 ELSE 96 END THEN radius + 1 ELSE 1 END
$$;

CREATE OR REPLACE FUNCTION imgmatch_check_call(verb text, radius numeric, hash_type text, flat text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    max_radius integer := CASE hash_type WHEN 'bmh1' THEN 961 ELSE 64 END;
BEGIN
    IF imgmatch_n_chars(hash_type) IS NULL THEN
        RAISE EXCEPTION '%: hash_type must be bmh1 or phash, got %. Hint: other kinds are in DuckDB and Python.',
            verb, coalesce(quote_literal(hash_type), 'NULL');
    ELSIF radius IS NULL OR radius < 0 OR radius > max_radius OR radius <> floor(radius) THEN
        RAISE EXCEPTION 'radius must be a whole number of bits from 0 to %, got %. Hint: 0 finds equal hashes, 4 of '
            'phash or 24 of bmh1 edited copies.', max_radius, coalesce(radius::text, 'NULL');
    ELSIF flat IS NULL OR flat NOT IN ('identical', 'match') THEN
        RAISE EXCEPTION 'flat must be ''identical'' or ''match'', got %. Hint: ''match'' compares images with little '
            'to see by their hashes.', coalesce(flat, 'NULL');
    END IF;
END
$$;

-- The type of a column, NULL where there is none.
CREATE OR REPLACE FUNCTION imgmatch_column(tbl regclass, name text) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT format_type(atttypid, NULL) FROM pg_attribute
    WHERE attrelid = tbl AND attname = name AND attnum > 0 AND NOT attisdropped
$$;

-- The rows of a table in order: number from 0, key, bits (NULL without a hash, 0 with a twin), what images with little
-- to see are equal by (twin: the digest, or the number of a row without one), and the size of the file.
CREATE OR REPLACE FUNCTION imgmatch_rows(verb text, tbl regclass, hash_type text, id text, flat text)
    RETURNS TABLE (number bigint, key text, bits varbit, twin text, digest text, size numeric)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    hash_dtype text := imgmatch_column(tbl, hash_type);
    id_dtype text := imgmatch_column(tbl, id);
    size_dtype text := imgmatch_column(tbl, 'size');
    digest_dtype text := imgmatch_column(tbl, 'sha256');
    quality text := CASE WHEN imgmatch_column(tbl, 'quality') IN ('smallint', 'integer', 'bigint')
        THEN 'quality' ELSE 'NULL::integer' END;
    is_table boolean := (SELECT relkind IN ('r', 'm', 't') FROM pg_class WHERE oid = tbl);
    sorted text := CASE WHEN id IS NOT NULL THEN format('%I%s', id, CASE
        WHEN id_dtype IN ('text', 'character varying', 'character', 'name') THEN ' COLLATE "C"' ELSE '' END)
        WHEN is_table THEN 'ctid' ELSE '1::text' END;
    wrong varbit;
BEGIN
    IF hash_dtype IS NULL THEN
        RAISE EXCEPTION '%: no column % in the table %. Hint: pass another table, or another hash_type.',
            verb, hash_type, tbl;
    ELSIF hash_dtype NOT IN ('bigint', 'bytea', 'bit', 'bit varying') THEN
        RAISE EXCEPTION '%: the column % of % has type %. Hint: a hash is a bigint, a bytea or a bit string.',
            verb, hash_type, tbl, hash_dtype;
    ELSIF id IS NOT NULL AND id_dtype IS NULL THEN
        RAISE EXCEPTION '%: no column % in the table %. Hint: pass the column of keys as id or reference_id, or NULL '
            'for row numbers.', verb, id, tbl;
    END IF;
    RETURN QUERY EXECUTE format(
        $q$
        SELECT number, key, CASE WHEN twin IS NULL THEN bits ELSE (bits # bits)::varbit END, twin, digest, size
        FROM (SELECT row - 1 AS number, key, bits, CASE
                WHEN %L = 'match' OR bits IS NULL THEN NULL
                WHEN coalesce(quality < 50, bit_count(bits) = ANY (%L::bigint[]))
                    THEN coalesce('sha256 ' || digest, 'row ' || row)
            END AS twin, digest, size
        FROM (
            SELECT row_number() OVER (ORDER BY %s) AS row, %s AS key,
                imgmatch_check_width(imgmatch_bits(%I), %L) AS bits,
                %s AS quality, %s AS digest, %s AS size
            FROM %s AS imgmatch_table
        ) AS rows) AS described
        $q$,
        flat, CASE hash_type WHEN 'bmh1' THEN '{0,961}' ELSE '{0}' END,
        sorted, CASE WHEN id IS NULL THEN '(row_number() OVER (ORDER BY ' || sorted || ') - 1)::text'
            ELSE format('%I::text', id) END, hash_type, hash_type, quality,
        CASE digest_dtype WHEN 'bytea' THEN 'encode(sha256, ''hex'')' WHEN 'text' THEN 'lower(sha256)'
            WHEN 'character varying' THEN 'lower(sha256)' ELSE 'NULL::text' END,
        CASE WHEN size_dtype IN ('smallint', 'integer', 'bigint', 'numeric') THEN 'size::numeric'
            ELSE 'NULL::numeric' END,
        tbl);
END
$$;

CREATE OR REPLACE FUNCTION imgmatch_check_width(bits varbit, hash_type text) RETURNS varbit
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF length(bits) <> imgmatch_n_chars(hash_type) THEN
        RAISE EXCEPTION 'the column % has a hash of % bits, and a % has %. Hint: hash_type names the kind of hash.',
            hash_type, length(bits), hash_type, imgmatch_n_chars(hash_type);
    END IF;
    RETURN bits;
END
$$;

-- The pairs of a hash of one list and one of another within the radius, by their numbers; with only_after those where
-- the second number is the larger one.
CREATE OR REPLACE FUNCTION imgmatch_pairs(
    radius integer, hash_type text, only_after boolean, left_numbers bigint[], left_bits varbit[],
    right_numbers bigint[], right_bits varbit[]
) RETURNS TABLE (left_number bigint, right_number bigint, distance integer)
    LANGUAGE sql IMMUTABLE AS $$
    WITH masks AS MATERIALIZED (
        SELECT imgmatch_masks(n_chars, imgmatch_n_bands(n_chars, radius)) AS masks
        FROM (SELECT imgmatch_n_chars(hash_type) AS n_chars) AS kind
    ),
    l AS MATERIALIZED (
        SELECT number, bits, key
        FROM unnest(left_numbers, left_bits) AS l(number, bits), masks, unnest(imgmatch_keys(bits, masks)) AS key
    ),
    r AS MATERIALIZED (
        SELECT number, bits, key
        FROM unnest(right_numbers, right_bits) AS r(number, bits), masks, unnest(imgmatch_keys(bits, masks)) AS key
    )
    SELECT DISTINCT l.number, r.number, bit_count(l.bits # r.bits)::integer
    FROM l JOIN r USING (key)
    WHERE bit_count(l.bits # r.bits) <= radius AND (l.number < r.number OR NOT only_after)
$$;

CREATE OR REPLACE FUNCTION near_duplicates(
    radius numeric, hash_type text DEFAULT 'bmh1', tbl text DEFAULT 'hashes', id text DEFAULT 'source',
    max_pairs bigint DEFAULT 100000000, flat text DEFAULT 'identical'
) RETURNS TABLE (left_id text, right_id text, distance integer)
    LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    numbers bigint[];
    bits varbit[];
    n_pairs numeric;
    found record;
BEGIN
    PERFORM imgmatch_check_call('near_duplicates', $1, $2, $6);
    -- Equal hashes are compared once. Twins are equal to themselves only.
    SELECT array_agg(h.number), array_agg(h.bits) INTO numbers, bits
    FROM (
        SELECT min(number) AS number, bits FROM imgmatch_rows('near_duplicates', $3::regclass, $2, $4, $6) AS rows
        WHERE bits IS NOT NULL AND twin IS NULL GROUP BY bits
    ) AS h;
    FOR found IN
        WITH rows AS MATERIALIZED (
            SELECT * FROM imgmatch_rows('near_duplicates', $3::regclass, $2, $4, $6) AS rows WHERE bits IS NOT NULL
        ),
        members AS MATERIALIZED (
            SELECT number, key, min(number) OVER (PARTITION BY bits, twin) AS first_number,
                count(*) OVER (PARTITION BY bits, twin) AS n_rows
            FROM rows
        ),
        near AS MATERIALIZED (
            SELECT left_number, right_number, distance
            FROM imgmatch_pairs($1::integer, $2, true, numbers, bits, numbers, bits)
            UNION ALL
            SELECT number, number, 0 FROM members WHERE number = first_number AND n_rows > 1
        ),
        counted AS MATERIALIZED (
            SELECT coalesce(sum(CASE WHEN l.number = r.number THEN l.n_rows * (l.n_rows - 1) / 2
                ELSE l.n_rows * r.n_rows END), 0) AS n_pairs
            FROM near JOIN members AS l ON l.number = left_number JOIN members AS r ON r.number = right_number
        )
        SELECT NULL::text AS left_key, NULL::text AS right_key, NULL::integer AS bits_apart, counted.n_pairs AS total,
            -1::bigint AS a, -1::bigint AS b
        FROM counted WHERE counted.n_pairs > $5
        UNION ALL
        SELECT CASE WHEN l.number < r.number THEN l.key ELSE r.key END,
            CASE WHEN l.number < r.number THEN r.key ELSE l.key END, distance, 0,
            least(l.number, r.number), greatest(l.number, r.number)
        FROM near JOIN members AS l ON l.first_number = left_number JOIN members AS r ON r.first_number = right_number
        WHERE (SELECT counted.n_pairs FROM counted) <= $5 AND (l.number < r.number OR left_number < right_number)
        ORDER BY 5, 6
    LOOP
        IF found.a = -1 THEN
            RAISE EXCEPTION 'near_duplicates: % pairs, more than max_pairs %. Hint: a smaller radius, or copies, which '
                'makes no pairs of equal hashes.', found.total, $5;
        END IF;
        left_id := found.left_key;
        right_id := found.right_key;
        distance := found.bits_apart;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION near_duplicates IS
    'every pair of rows within radius bits. Example: SELECT * FROM near_duplicates(4, ''phash'')';

CREATE OR REPLACE FUNCTION copies(
    radius numeric, hash_type text DEFAULT 'bmh1', tbl text DEFAULT 'hashes', id text DEFAULT 'source',
    flat text DEFAULT 'identical'
) RETURNS TABLE (kept text, copies bigint, farthest integer, bytes numeric, removed text[])
    LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    numbers bigint[];
    bits varbit[];
    parents bigint[];
    one bigint;
    other bigint;
    pair record;
BEGIN
    PERFORM imgmatch_check_call('copies', $1, $2, $5);
    SELECT array_agg(h.number ORDER BY h.number), array_agg(h.bits ORDER BY h.number) INTO numbers, bits
    FROM (
        SELECT min(number) AS number, bits FROM imgmatch_rows('copies', $3::regclass, $2, $4, $5) AS rows
        WHERE bits IS NOT NULL AND twin IS NULL GROUP BY bits
    ) AS h;
    -- Union of the places in numbers; the parent of a place never comes after it.
    parents := ARRAY(SELECT generate_series(1, coalesce(cardinality(numbers), 0)))::bigint[];
    FOR pair IN
        SELECT left_number, right_number FROM imgmatch_pairs($1::integer, $2, true,
            ARRAY(SELECT generate_series(1, cardinality(numbers)))::bigint[], bits,
            ARRAY(SELECT generate_series(1, cardinality(numbers)))::bigint[], bits)
    LOOP
        one := pair.left_number;
        other := pair.right_number;
        WHILE parents[one] <> one LOOP
            parents[one] := parents[parents[one]];
            one := parents[one];
        END LOOP;
        WHILE parents[other] <> other LOOP
            parents[other] := parents[parents[other]];
            other := parents[other];
        END LOOP;
        parents[greatest(one, other)] := least(one, other);
    END LOOP;
    FOR one IN 1 .. coalesce(cardinality(parents), 0) LOOP
        parents[one] := parents[parents[one]];
    END LOOP;
    RETURN QUERY
        WITH rows AS MATERIALIZED (
            SELECT * FROM imgmatch_rows('copies', $3::regclass, $2, $4, $5) AS rows WHERE bits IS NOT NULL
        ),
        members AS MATERIALIZED (
            SELECT number, key, bits, size, min(number) OVER (PARTITION BY bits, twin) AS first_number FROM rows
        ),
        firsts AS (SELECT number, numbers[parent] AS representative FROM unnest(numbers, parents) AS f(number, parent)),
        clustered AS (
            SELECT members.*, coalesce(representative, first_number) AS representative
            FROM members LEFT JOIN firsts ON firsts.number = first_number
        )
        SELECT k.key, count(*), max(bit_count(c.bits # k.bits))::integer, sum(c.size),
            array_agg(c.key ORDER BY c.number)
        FROM clustered AS c JOIN rows AS k ON k.number = c.representative
        WHERE c.number <> c.representative
        GROUP BY k.number, k.key
        ORDER BY count(*) DESC, k.number;
END
$$;
COMMENT ON FUNCTION copies IS 'each cluster in one row, most copies first. Example: SELECT * FROM copies(24)';

-- A function cannot have an argument and a result column of one name, so the result has a type of its own.
DO $do$
BEGIN
    IF to_regtype('imgmatch_match') IS NULL THEN
        CREATE TYPE imgmatch_match AS (query_id text, reference_id text, distance integer);
    END IF;
END
$do$;

CREATE OR REPLACE FUNCTION matches(
    tbl text, radius numeric, reference text DEFAULT 'hashes', hash_type text DEFAULT 'bmh1',
    id text DEFAULT 'source', reference_id text DEFAULT 'source', max_pairs bigint DEFAULT 100000000,
    flat text DEFAULT 'identical'
) RETURNS SETOF imgmatch_match
    LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    numbers bigint[];
    bits varbit[];
    other_numbers bigint[];
    other_bits varbit[];
    n_pairs bigint;
BEGIN
    PERFORM imgmatch_check_call('matches', $2, $4, $8);
    SELECT array_agg(number), array_agg(bits) INTO numbers, bits
    FROM imgmatch_rows('matches', $1::regclass, $4, $5, $8) AS rows WHERE bits IS NOT NULL AND twin IS NULL;
    SELECT array_agg(number), array_agg(bits) INTO other_numbers, other_bits
    FROM imgmatch_rows('matches', $3::regclass, $4, $6, $8) AS rows WHERE bits IS NOT NULL AND twin IS NULL;
    RETURN QUERY
        WITH l AS MATERIALIZED (
            SELECT * FROM imgmatch_rows('matches', $1::regclass, $4, $5, $8) AS rows WHERE bits IS NOT NULL
        ),
        r AS MATERIALIZED (
            SELECT * FROM imgmatch_rows('matches', $3::regclass, $4, $6, $8) AS rows WHERE bits IS NOT NULL
        ),
        near AS (
            SELECT left_number, right_number, distance
            FROM imgmatch_pairs($2::integer, $4, false, numbers, bits, other_numbers, other_bits)
            UNION ALL
            SELECT l.number, r.number, 0 FROM l JOIN r ON l.digest = r.digest
            WHERE l.twin IS NOT NULL AND r.twin IS NOT NULL
            LIMIT $7 + 1
        )
        SELECT l.key, r.key, near.distance
        FROM near JOIN l ON l.number = left_number JOIN r ON r.number = right_number
        ORDER BY l.number, near.distance, r.number;
    GET DIAGNOSTICS n_pairs = ROW_COUNT;
    IF n_pairs > $7 THEN
        RAISE EXCEPTION 'matches: more than max_pairs % pairs. Hint: a smaller radius, or another max_pairs.', $7;
    END IF;
END
$$;
COMMENT ON FUNCTION matches IS
    'every row of tbl with the rows of reference within radius bits. Example: SELECT * FROM matches(''inbox'', 24)';

-- The hash that text stands for: of the row with this id, or else hexadecimal digits or characters of 0 and 1.
CREATE OR REPLACE FUNCTION imgmatch_query_bits(query text, hash_type text, tbl regclass, id text) RETURNS varbit
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    digits text := regexp_replace(trim(E' \t\n' FROM query), '^0[xX]', '');
    n_chars integer := imgmatch_n_chars(hash_type);
    found varbit[];
    n_rows bigint;
BEGIN
    IF id IS NOT NULL AND imgmatch_column(tbl, id) IS NULL THEN
        n_rows := 0;
    ELSIF id IS NOT NULL THEN
        SELECT count(*), array_agg(DISTINCT bits) INTO n_rows, found
        FROM imgmatch_rows('rank_images', tbl, hash_type, id, 'match') AS rows WHERE key = query;
    END IF;
    IF query IS NULL THEN
        RAISE EXCEPTION 'rank_images: the query is NULL, an empty text. Hint: pass the value of a key, or a hash.';
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'rank_images: % rows with different hashes have % %. Hint: pass the hash.', n_rows, id, query;
    ELSIF n_rows > 0 AND found[1] IS NULL THEN
        RAISE EXCEPTION 'rank_images: the row with % % has no %. Hint: rank by another row.', id, query, hash_type;
    ELSIF n_rows > 0 THEN
        RETURN found[1];
    ELSIF length(digits) = n_chars AND digits ~ '^[01]*$' THEN
        RETURN digits::varbit;
    ELSIF 4 * length(digits) = n_chars AND digits ~ '^[0-9a-fA-F]*$' THEN
        RETURN ('x' || digits)::varbit;
    END IF;
    RAISE EXCEPTION 'rank_images: no row of % has % %, and it is not a hash of % either. Hint: a hash is a bigint, a '
        'bytea, a bit string, or text of hexadecimal digits or of 0 and 1.', tbl, coalesce(id, 'the id'),
        left(query, 80), hash_type;
END
$$;

CREATE OR REPLACE FUNCTION imgmatch_ranked(
    query varbit, k bigint, tbl text, hash_type text, flat text, id text
) RETURNS TABLE (rank bigint, distance integer, key text)
    LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM imgmatch_check_call('rank_images', 0, $4, $5);
    IF $2 < 1 THEN
        RAISE EXCEPTION 'rank_images: k must be a whole number from 1, or NULL, got %. Hint: NULL ranks all rows.', $2;
    END IF;
    PERFORM imgmatch_check_width($1, $4);
    RETURN QUERY
        SELECT CASE WHEN d.distance IS NOT NULL THEN row_number() OVER (ORDER BY d.distance NULLS LAST, d.number) END,
            d.distance, d.key
        FROM (
            SELECT number, rows.key, CASE WHEN twin IS NULL THEN bit_count(bits # $1)::integer END AS distance
            FROM imgmatch_rows('rank_images', $3::regclass, $4, $6, $5) AS rows
        ) AS d
        WHERE $1 IS NOT NULL
        ORDER BY d.distance NULLS LAST, d.number LIMIT $2;
END
$$;

CREATE OR REPLACE FUNCTION rank_images(
    query text, k bigint DEFAULT NULL, tbl text DEFAULT 'hashes', hash_type text DEFAULT NULL,
    flat text DEFAULT 'identical', id text DEFAULT 'source'
) RETURNS TABLE (rank bigint, distance integer, key text)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- Digits rank by the kind that has as many; a key by bmh1, or by phash where the table has no bmh1.
    kind text := coalesce($4, CASE
        WHEN length(regexp_replace(trim(E' \t\n' FROM $1), '^0[xX]', '')) IN (16, 64)
            AND imgmatch_column($3::regclass, 'phash') IS NOT NULL
            AND trim(E' \t\n' FROM $1) ~ '^([01]{64}|(0[xX])?[0-9a-fA-F]{16})$' THEN 'phash'
        WHEN imgmatch_column($3::regclass, 'bmh1') IS NOT NULL THEN 'bmh1'
        ELSE 'phash'
    END);
BEGIN
    PERFORM imgmatch_check_call('rank_images', 0, kind, $5);
    RETURN QUERY SELECT r.* FROM imgmatch_ranked(
        imgmatch_query_bits($1, kind, $3::regclass, $6), $2, $3, kind, $5, $6) AS r;
END
$$;

CREATE OR REPLACE FUNCTION rank_images(
    query bigint, k bigint DEFAULT NULL, tbl text DEFAULT 'hashes', hash_type text DEFAULT NULL,
    flat text DEFAULT 'identical', id text DEFAULT 'source'
) RETURNS TABLE (rank bigint, distance integer, key text)
    LANGUAGE sql STABLE AS $$
    SELECT * FROM imgmatch_ranked(imgmatch_bits($1), $2, $3, coalesce($4, 'phash'), $5, $6)
$$;

CREATE OR REPLACE FUNCTION rank_images(
    query bytea, k bigint DEFAULT NULL, tbl text DEFAULT 'hashes', hash_type text DEFAULT NULL,
    flat text DEFAULT 'identical', id text DEFAULT 'source'
) RETURNS TABLE (rank bigint, distance integer, key text)
    LANGUAGE sql STABLE AS $$
    SELECT * FROM imgmatch_ranked(imgmatch_bits($1), $2, $3, coalesce($4, 'bmh1'), $5, $6)
$$;

CREATE OR REPLACE FUNCTION rank_images(
    query varbit, k bigint DEFAULT NULL, tbl text DEFAULT 'hashes', hash_type text DEFAULT NULL,
    flat text DEFAULT 'identical', id text DEFAULT 'source'
) RETURNS TABLE (rank bigint, distance integer, key text)
    LANGUAGE sql STABLE AS $$
    SELECT * FROM imgmatch_ranked(
        $1, $2, $3, coalesce($4, CASE length($1) WHEN 64 THEN 'phash' ELSE 'bmh1' END), $5, $6)
$$;
COMMENT ON FUNCTION rank_images(text, bigint, text, text, text, text) IS
    'the k rows nearest to a stored key or a hash. Example: SELECT * FROM rank_images(''photos/beach.jpg'', 10)';
