-- Distances of hashes, and conversion from and to the documented 0/1 strings and hexadecimal digits.
--
-- A phash is a whole number of 64 bits: a UBIGINT here, and elsewhere often a BIGINT, HUGEINT or DECIMAL. A negative
-- number stands for the same 64 bits (two's complement), as Postgres and Spark store them. So is each other hash of 64
-- bits. A bmh1 is a BLOB of 121 bytes (968 bits, the last 7 always 0); longer hashes of other kinds are BLOBs too.
--
--   hamming(a, b)               USMALLINT: the number of bits in which two hashes of one kind differ. NULL where either
--                               is NULL. An error for hashes of two kinds, or BLOBs of two widths.
--   to_bits(hash)               VARCHAR: the string of 0 and 1, each byte most significant bit first: 64 characters of
--                               a number, 8 for each byte of a BLOB; 64 and 968 are documented.
--   from_bits(bits, hash_type)  UBIGINT or BLOB, by the kind: the hash that such a string stands for. An error for any
--                               other string.
--   hash_to_hex(hash)           VARCHAR: the hexadecimal digits in lower case, two for each byte: 16 of a number. As
--                               ImageHash and pdqhash print their hashes. DuckDB itself has to_hex and from_hex.
--   hash_from_hex(digits, hash_type)  UBIGINT or BLOB, by the kind: the hash that such digits stand for, in any case,
--                               also after 0x. An error for any other text.
--   to_points(local)            STRUCT(hash UBIGINT, x UTINYINT, y UTINYINT, level UTINYINT)[]: the points of a local
--                               hash, a BLOB of 715 bytes. Local hashes have no distance; Python compares them by
--                               votes.
--   turned(hash, turn, hash_type)  UBIGINT or BLOB, by the kind: the hash of the turned image. turn is 'none',
--                               'rotated_90' (clockwise), 'rotated_180', 'rotated_270', 'mirrored', 'flipped',
--                               'transposed' or 'transversed'. A BLOB is a bmh1 unless hash_type names another kind. An
--                               error for a kind whose bits do not give it.
--
--   SELECT hamming(a.bmh1, b.bmh1) FROM hashes a, hashes b WHERE a.source = 'one.jpg' AND b.source = 'two.jpg';
--   SELECT to_bits(phash) FROM hashes;
--   SELECT hash_from_hex(hex, 'phash') AS phash FROM 'blocklist.csv';
--
-- Macros find each other and their tables in the current database and schema: open the file itself, or USE it if it is
-- attached. To read a file of macros again changes nothing. DuckDB 1.5 or later. The macros use CASE, because 1.5 does
-- not have the function that 2.0 stores for if().

-- The hash kinds. All macros below derive from them. In a store, the lines between the two marks name all kinds of the
-- program that wrote it.
-- hash kinds: begin
CREATE OR REPLACE MACRO imgmatch_hash_types() AS
    [
        'bmh1',
        'phash',
        'pdq',
        'imagehash_phash',
        'imagehash_dhash',
        'imagehash_ahash',
        'imagehash_phash16',
        'imagehash_dhash16',
        'local',
        'sha256'
    ];
CREATE OR REPLACE MACRO imgmatch_vote_types() AS
    ['local']::VARCHAR[];
CREATE OR REPLACE MACRO imgmatch_hash_form(hash_type) AS
    CASE hash_type
        WHEN 'bmh1' THEN 'bytes'
        WHEN 'phash' THEN 'number'
        WHEN 'pdq' THEN 'bytes'
        WHEN 'imagehash_phash' THEN 'number'
        WHEN 'imagehash_dhash' THEN 'number'
        WHEN 'imagehash_ahash' THEN 'number'
        WHEN 'imagehash_phash16' THEN 'bytes'
        WHEN 'imagehash_dhash16' THEN 'bytes'
        WHEN 'local' THEN 'bytes'
        WHEN 'sha256' THEN 'bytes'
        ELSE 'other'
    END;
CREATE OR REPLACE MACRO imgmatch_n_chars(hash_type) AS
    CASE hash_type
        WHEN 'bmh1' THEN 968
        WHEN 'phash' THEN 64
        WHEN 'pdq' THEN 256
        WHEN 'imagehash_phash' THEN 64
        WHEN 'imagehash_dhash' THEN 64
        WHEN 'imagehash_ahash' THEN 64
        WHEN 'imagehash_phash16' THEN 256
        WHEN 'imagehash_dhash16' THEN 256
        WHEN 'local' THEN 5720
        WHEN 'sha256' THEN 256
        ELSE NULL
    END;
CREATE OR REPLACE MACRO imgmatch_max_radius(hash_type) AS
    CASE hash_type
        WHEN 'bmh1' THEN 961
        WHEN 'phash' THEN 64
        WHEN 'pdq' THEN 256
        WHEN 'imagehash_phash' THEN 64
        WHEN 'imagehash_dhash' THEN 64
        WHEN 'imagehash_ahash' THEN 64
        WHEN 'imagehash_phash16' THEN 256
        WHEN 'imagehash_dhash16' THEN 256
        WHEN 'local' THEN 5720
        WHEN 'sha256' THEN 256
        ELSE 8192
    END;
CREATE OR REPLACE MACRO imgmatch_max_radius_of_bits(n_chars) AS
    CASE n_chars
        WHEN 968 THEN 961
        WHEN 64 THEN 64
        WHEN 256 THEN 256
        WHEN 5720 THEN 5720
        ELSE n_chars
    END;
CREATE OR REPLACE MACRO imgmatch_is_hash_width(n_bytes) AS
    n_bytes IN (32, 121, 715);
CREATE OR REPLACE MACRO imgmatch_width_text() AS
    'a hash is a BLOB of 32, 121 or 715 bytes';
CREATE OR REPLACE MACRO imgmatch_chars_text() AS
    'hashes have 64, 256, 968 or 5720 characters';
CREATE OR REPLACE MACRO imgmatch_flat_counts(hash_type) AS
    CASE hash_type
        WHEN 'bmh1' THEN [0, 961]
        WHEN 'phash' THEN [0]
        ELSE []
    END;
CREATE OR REPLACE MACRO imgmatch_turn_grid(hash_type) AS
    CASE hash_type
        WHEN 'bmh1' THEN {'side': 31, 'bit_order': 'lowest', 'frequency': NULL::INTEGER}
        WHEN 'pdq' THEN {'side': 16, 'bit_order': 'last', 'frequency': 1}
        WHEN 'imagehash_phash' THEN {'side': 8, 'bit_order': 'first', 'frequency': 0}
        WHEN 'imagehash_ahash' THEN {'side': 8, 'bit_order': 'first', 'frequency': NULL::INTEGER}
        WHEN 'imagehash_phash16' THEN {'side': 16, 'bit_order': 'first', 'frequency': 0}
        ELSE NULL
    END;
CREATE OR REPLACE MACRO imgmatch_near_text() AS
    '4 of phash or 24 of bmh1';
-- hash kinds: end

CREATE OR REPLACE MACRO imgmatch_not_64_bits(hash) AS error(format(
    'a phash is a whole number of 64 bits, from -9223372036854775808 to 18446744073709551615, got {}', hash::VARCHAR));

CREATE OR REPLACE MACRO imgmatch_not_text(hash) AS error(format(
    'a hash is a number (phash) or a BLOB (bmh1), got the text {:.80}. Hint: from_bits(bits, hash_type) reads 0 and 1, '
    'hash_from_hex(digits, hash_type) reads hexadecimal, decimal::HUGEINT reads decimal.', hash));

-- Hashes as UBIGINT or BIT, because &, xor and bit_count take both. DuckDB chooses the overload by the type of the
-- column when it binds the query.
CREATE OR REPLACE MACRO imgmatch_words
    (hash UBIGINT) AS hash,
    (hash BIGINT) AS CASE
        WHEN hash >= 0 THEN hash::UBIGINT
        ELSE 18446744073709551615::UBIGINT - (-(hash + 1))::UBIGINT
    END,
    (hash HUGEINT) AS CASE
        WHEN hash BETWEEN 0 AND 18446744073709551615 THEN hash::UBIGINT
        WHEN hash BETWEEN -9223372036854775808 AND -1 THEN (hash + 18446744073709551616)::UBIGINT
        WHEN hash IS NOT NULL THEN imgmatch_not_64_bits(hash)
    END,
    (hash UHUGEINT) AS CASE
        WHEN hash <= 18446744073709551615 THEN hash::UBIGINT
        WHEN hash IS NOT NULL THEN imgmatch_not_64_bits(hash)
    END,
    (hash DECIMAL(38, 18)) AS CASE
        WHEN hash <> floor(hash) THEN imgmatch_not_64_bits(hash)
        WHEN hash BETWEEN 0 AND 18446744073709551615 THEN hash::UBIGINT
        WHEN hash BETWEEN -9223372036854775808 AND -1 THEN (hash::HUGEINT + 18446744073709551616)::UBIGINT
        WHEN hash IS NOT NULL THEN imgmatch_not_64_bits(hash)
    END,
    (hash DOUBLE) AS CASE WHEN hash IS NOT NULL THEN error(format(
        'a phash is a whole number of 64 bits, got the DOUBLE {}, which has 53 bits. Hint: read the '
        'column as HUGEINT.', hash::VARCHAR))::UBIGINT END,
    (hash BLOB) AS CASE
        WHEN imgmatch_is_hash_width(octet_length(hash)) THEN hash::BIT
        WHEN hash IS NOT NULL THEN error(format('{}, got {} bytes', imgmatch_width_text(), octet_length(hash)))
    END,
    (hash VARCHAR) AS CASE WHEN hash IS NOT NULL THEN imgmatch_not_text(hash)::UBIGINT END,
    (hash "NULL") AS NULL::UBIGINT;

-- Hashes for a comparison with one hash of their kind. Not as BIT: the cast of both sides in one expression is faster
-- (1,000,000 bmh1: 240 ms against 280).
CREATE OR REPLACE MACRO imgmatch_comparable
    (hash UBIGINT) AS hash,
    (hash BIGINT) AS imgmatch_words(hash),
    (hash HUGEINT) AS imgmatch_words(hash),
    (hash UHUGEINT) AS imgmatch_words(hash),
    (hash DECIMAL(38, 18)) AS imgmatch_words(hash),
    (hash DOUBLE) AS imgmatch_words(hash),
    (hash BLOB) AS hash,
    (hash VARCHAR) AS imgmatch_not_text(hash),
    (hash "NULL") AS NULL;

-- Two numbers of different types are compared as HUGEINT. The first overloads are the fast ones.
CREATE OR REPLACE MACRO hamming
    (a UBIGINT, b UBIGINT) AS bit_count(xor(a, b))::USMALLINT,
    (a BIGINT, b BIGINT) AS bit_count(xor(a, b))::USMALLINT,
    (a HUGEINT, b HUGEINT) AS bit_count(xor(imgmatch_words(a), imgmatch_words(b)))::USMALLINT,
    (a UHUGEINT, b UHUGEINT) AS bit_count(xor(imgmatch_words(a), imgmatch_words(b)))::USMALLINT,
    (a DECIMAL(38, 18), b DECIMAL(38, 18)) AS bit_count(xor(imgmatch_words(a), imgmatch_words(b)))::USMALLINT,
    (a DOUBLE, b DOUBLE) AS bit_count(xor(imgmatch_words(a), imgmatch_words(b)))::USMALLINT,
    (a BLOB, b BLOB) AS CASE
        WHEN octet_length(a) = octet_length(b) THEN bit_count(xor(a::BIT, b::BIT))::USMALLINT
        WHEN a IS NOT NULL AND b IS NOT NULL THEN error(format(
            'hamming: cannot compare hashes of {} bytes with hashes of {} bytes. Hint: both must be of one kind.',
            octet_length(a), octet_length(b)))
    END,
    (a VARCHAR, b VARCHAR) AS imgmatch_not_text(coalesce(a, b))::USMALLINT,
    (a "NULL", b "NULL") AS NULL::USMALLINT;

CREATE OR REPLACE MACRO to_bits
    (hash UBIGINT) AS hash::BIT::VARCHAR,
    (hash BIGINT) AS hash::BIT::VARCHAR,
    (hash HUGEINT) AS imgmatch_words(hash)::BIT::VARCHAR,
    (hash UHUGEINT) AS imgmatch_words(hash)::BIT::VARCHAR,
    (hash DECIMAL(38, 18)) AS imgmatch_words(hash)::BIT::VARCHAR,
    (hash DOUBLE) AS imgmatch_words(hash)::BIT::VARCHAR,
    (hash BLOB) AS hash::BIT::VARCHAR,
    (hash VARCHAR) AS imgmatch_not_text(hash)::VARCHAR,
    (hash "NULL") AS NULL::VARCHAR;

CREATE OR REPLACE MACRO hash_to_hex
    (hash UBIGINT) AS lpad(lower(hex(hash)), 16, '0'),
    (hash BIGINT) AS lpad(lower(hex(imgmatch_words(hash))), 16, '0'),
    (hash HUGEINT) AS lpad(lower(hex(imgmatch_words(hash))), 16, '0'),
    (hash UHUGEINT) AS lpad(lower(hex(imgmatch_words(hash))), 16, '0'),
    (hash DECIMAL(38, 18)) AS lpad(lower(hex(imgmatch_words(hash))), 16, '0'),
    (hash DOUBLE) AS lpad(lower(hex(imgmatch_words(hash))), 16, '0'),
    (hash BLOB) AS lower(hex(hash)),
    (hash VARCHAR) AS imgmatch_not_text(hash)::VARCHAR,
    (hash "NULL") AS NULL::VARCHAR;

CREATE OR REPLACE MACRO imgmatch_check_bits(bits, n_bits) AS CASE
    WHEN length(bits) = n_bits AND trim(bits, '01') = '' THEN bits
    WHEN bits IS NOT NULL THEN error(format(
        'from_bits: got {:.80} ({} characters), expected {} characters of 0 and 1. Hint: {}; '
        'hexadecimal is read by hash_from_hex(digits, hash_type).',
        bits, length(bits), n_bits, imgmatch_chars_text()))
END;

CREATE OR REPLACE MACRO imgmatch_check_hash_type(hash_type) AS CASE
    WHEN list_contains(imgmatch_hash_types(), hash_type::VARCHAR) THEN hash_type::VARCHAR
    ELSE error(format(
        'hash_type must be one of ''{}'', got {}. Hint: bmh1 separates near-duplicates best, phash is the compact '
        '64-bit one.',
        array_to_string(imgmatch_hash_types(), ''', '''), coalesce('''' || hash_type::VARCHAR || '''', 'NULL')))
END;

-- DuckDB chooses the field of the struct when it binds the query, so that each kind keeps its type.
CREATE OR REPLACE MACRO from_bits(bits, hash_type) AS struct_extract({
    'number': CASE WHEN imgmatch_hash_form(hash_type::VARCHAR) = 'number'
        THEN imgmatch_check_bits(bits, imgmatch_n_chars(hash_type::VARCHAR))::BIT::UBIGINT
    END,
    'bytes': CASE WHEN imgmatch_hash_form(hash_type::VARCHAR) = 'bytes'
        THEN imgmatch_check_bits(bits, imgmatch_n_chars(hash_type::VARCHAR))::BIT::BLOB
    END,
    'other': imgmatch_check_hash_type(hash_type)
}, imgmatch_hash_form(hash_type::VARCHAR));

CREATE OR REPLACE MACRO imgmatch_check_hex(digits, n_digits) AS CASE
    WHEN regexp_full_match(digits, '(0[xX])?[0-9a-fA-F]*')
        AND length(regexp_replace(digits, '^0[xX]', '')) = n_digits THEN regexp_replace(digits, '^0[xX]', '')
    WHEN digits IS NOT NULL THEN error(format(
        'hash_from_hex: got {:.80} ({} characters), expected {} hexadecimal digits. Hint: name the kind that has this '
        'length; 0 and 1 are read by from_bits(bits, hash_type).',
        digits, length(digits), n_digits))
END;

CREATE OR REPLACE MACRO hash_from_hex(digits, hash_type) AS struct_extract({
    'number': CASE WHEN imgmatch_hash_form(hash_type::VARCHAR) = 'number'
        THEN ('0x' || imgmatch_check_hex(digits, imgmatch_n_chars(hash_type::VARCHAR) // 4))::UBIGINT
    END,
    'bytes': CASE WHEN imgmatch_hash_form(hash_type::VARCHAR) = 'bytes'
        THEN unhex(imgmatch_check_hex(digits, imgmatch_n_chars(hash_type::VARCHAR) // 4))
    END,
    'other': imgmatch_check_hash_type(hash_type)
}, imgmatch_hash_form(hash_type::VARCHAR));

-- Whether a column of this name comes after all others: a hash, or imgmatch_none, without which a list of hash columns
-- could be empty.
CREATE OR REPLACE MACRO imgmatch_is_last(name) AS
    name = 'imgmatch_none' OR list_contains(imgmatch_hash_types(), name);

-- The column of a name, in any case, as a list of one name; the last column of the table if there is none.
CREATE OR REPLACE MACRO imgmatch_one(names, wanted) AS
    list_concat(list_filter(names, lambda name: lower(name) = lower(wanted)), names[-1:])[:1];

CREATE OR REPLACE MACRO imgmatch_hash_column(names, hash_type) AS
    imgmatch_one(names, CASE
        WHEN list_contains(imgmatch_hash_types(), hash_type::VARCHAR) THEN hash_type::VARCHAR ELSE names[-1]
    END);

-- The check of a call on a table: one row, zero 0, or an error. With any_kind, hash_type may be NULL for any column of
-- hashes. tbl_name and id_name are the arguments that a message names.
-- hash_columns, id_columns and taken_columns have no rows. Their types show which columns exist, and in which case they
-- are written. They are checked when the query runs, because a lambda of COLUMNS must not raise an error.
CREATE OR REPLACE MACRO imgmatch_check_call(
    verb, hash_type, tbl, id, taken, any_kind := false, tbl_name := 'tbl', id_name := 'id'
) AS TABLE
    WITH imgmatch_fields AS (SELECT *, NULL AS imgmatch_none FROM query_table(tbl) LIMIT 0),
    hash_columns AS (
        SELECT COLUMNS(lambda name: lower(name) IN (hash_type::VARCHAR, 'imgmatch_none')
            OR (any_kind AND hash_type IS NULL AND list_contains(imgmatch_hash_types(), lower(name))))
        FROM imgmatch_fields
    ),
    id_columns AS (
        SELECT COLUMNS(lambda name: lower(name) IN (lower(id), 'imgmatch_none')) FROM imgmatch_fields
    ),
    taken_columns AS (
        SELECT COLUMNS(lambda name: list_contains(taken, lower(name)) OR name = 'imgmatch_none') FROM imgmatch_fields
    ),
    found AS (
        SELECT
            (SELECT typeof(any_value(record)) FROM hash_columns AS record) AS hash_fields,
            (SELECT typeof(any_value(record)) FROM id_columns AS record) AS id_fields,
            (SELECT typeof(any_value(record)) FROM taken_columns AS record) AS taken_fields,
            (SELECT typeof(any_value(record)) FROM (SELECT * EXCLUDE imgmatch_none FROM imgmatch_fields) AS record)
                [8:-2] AS fields,
            'STRUCT(imgmatch_none "NULL")' AS none
    )
    SELECT CASE
        WHEN NOT (any_kind AND hash_type IS NULL) AND imgmatch_check_hash_type(hash_type) IS NULL THEN NULL
        WHEN list_contains(imgmatch_vote_types(), hash_type::VARCHAR) THEN error(format(
            '{}: {} hashes have no distance. Hint: near_duplicates(hash_type="{}") of the Python package compares them '
            'by votes.', verb, hash_type, hash_type))
        WHEN hash_fields = none THEN error(format(
            '{}: no column {} in the table, which has {:.300}. Hint: pass another table as {}, or another '
            'hash_type.', verb, coalesce(hash_type::VARCHAR, 'of hashes'), fields, tbl_name))
        WHEN id IS NOT NULL AND id_fields = none THEN error(format(
            '{}: no column {} in the table, which has {:.300}. Hint: pass the column of keys as {}, '
            'or {} := NULL for row numbers.',
            verb, id, fields, id_name, id_name))
        WHEN taken_fields <> none THEN error(format(
            '{}: the table has columns with names of the result: {}. Hint: pass a view that renames them as tbl.',
            verb, taken_fields[8:-24]))
        ELSE 0
    END AS zero
    FROM found;

CREATE OR REPLACE MACRO imgmatch_hex_number(digits, start, n_digits) AS
    ('0x' || substr(digits, start, n_digits))::UBIGINT;

CREATE OR REPLACE MACRO to_points(local) AS list_transform([CASE
    WHEN octet_length(local::BLOB) <> imgmatch_n_chars('local') // 8 THEN error(format(
        'to_points: got {} bytes, a local hash has {}. Hint: pass the column local.',
        octet_length(local::BLOB), imgmatch_n_chars('local') // 8))
    ELSE hex(local::BLOB)
END], lambda digits: CASE WHEN digits IS NOT NULL THEN list_transform(
    range(1, 1 + imgmatch_hex_number(digits, 21, 2)::BIGINT), lambda i: {
        'hash': imgmatch_hex_number(digits, 22 * i + 1, 16),
        'x': imgmatch_hex_number(digits, 22 * i + 17, 2)::UTINYINT,
        'y': imgmatch_hex_number(digits, 22 * i + 19, 2)::UTINYINT,
        'level': imgmatch_hex_number(digits, 22 * i + 21, 2)::UTINYINT
    })
END)[1];

COMMENT ON MACRO from_bits IS 'from_bits(bits, hash_type): the hash of a documented string of 0 and 1';
CREATE OR REPLACE MACRO imgmatch_check_turn(turn, hash_type) AS CASE
    WHEN hash_type IS NULL OR imgmatch_turn_grid(hash_type) IS NULL THEN error(format(
        'turned: the bits of {} do not give the hash of a turned image. Hint: hash_type := names the kind, such as '
        'bmh1, pdq or imagehash_phash.', coalesce(hash_type::VARCHAR, 'an unknown kind')))
    WHEN turn IN (
        'none', 'rotated_90', 'rotated_180', 'rotated_270', 'mirrored', 'flipped', 'transposed', 'transversed'
    ) THEN turn
    ELSE error(format(
        'turned: turn must be none, rotated_90, rotated_180, rotated_270, mirrored, flipped, transposed or '
        'transversed, got {}. Hint: mirrored is left to right, flipped top to bottom.',
        coalesce(turn::VARCHAR, 'NULL')))
END;

-- A turn swaps rows and columns, then reverses the rows, then the columns. Here and below, lambda binds what a macro
-- would repeat.
CREATE OR REPLACE MACRO imgmatch_turn_steps(turn) AS list_transform([turn], lambda t: {
    'swaps': t IN ('rotated_90', 'rotated_270', 'transposed', 'transversed'),
    'rows': (t IN ('rotated_180', 'rotated_270', 'flipped', 'transversed'))::INTEGER,
    'columns': (t IN ('rotated_90', 'rotated_180', 'mirrored', 'transversed'))::INTEGER
})[1];

-- The place of a character of the 0/1 string in the square of bits, row by row, and the character of a place.
CREATE OR REPLACE MACRO imgmatch_turn_place(i, bit_order, n_chars) AS
    CASE bit_order WHEN 'lowest' THEN xor(i, 7) WHEN 'last' THEN n_chars - 1 - i ELSE i END;

-- For each character of a 0/1 string: the one that it is read from, and 1 where it is inverted. Bits that
-- belong to places move with them. Cosine coefficients swap rows and columns; those of an odd frequency change sign.
CREATE OR REPLACE MACRO imgmatch_turn_moves(grid, steps, n_chars) AS list_transform(
    list_transform(
        list_transform(range(n_chars), lambda i: imgmatch_turn_place(i, grid.bit_order, n_chars)),
        lambda p: {
            'place': p,
            'y': CASE WHEN grid.frequency IS NULL AND steps.rows = 1
                THEN grid.side - 1 - p // grid.side ELSE p // grid.side END,
            'x': CASE WHEN grid.frequency IS NULL AND steps.columns = 1
                THEN grid.side - 1 - p % grid.side ELSE p % grid.side END
        }
    ),
    lambda cell: CASE
        WHEN cell.place >= grid.side * grid.side
            THEN {'source': imgmatch_turn_place(cell.place, grid.bit_order, n_chars)::INTEGER, 'inverts': 0}
        ELSE {
            'source': imgmatch_turn_place(
                CASE WHEN steps.swaps THEN cell.x * grid.side + cell.y ELSE cell.y * grid.side + cell.x END,
                grid.bit_order, n_chars)::INTEGER,
            'inverts': coalesce(
                steps.rows * (cell.y + grid.frequency) + steps.columns * (cell.x + grid.frequency), 0)::INTEGER % 2
        }
    END);

CREATE OR REPLACE MACRO imgmatch_turned_text(bits, turn, hash_type) AS list_transform(
    [{
        'bits': bits::BIT,
        'moves': list_transform(
            [{
                'grid': imgmatch_turn_grid(hash_type),
                'steps': imgmatch_turn_steps(imgmatch_check_turn(turn, hash_type)),
                'n_chars': imgmatch_n_chars(hash_type)
            }],
            lambda plan: imgmatch_turn_moves(plan.grid, plan.steps, plan.n_chars))[1]
    }],
    lambda given: CASE WHEN given.bits IS NOT NULL THEN array_to_string(list_transform(given.moves,
        lambda move: xor(get_bit(given.bits, move.source), move.inverts)), '') END)[1];

CREATE OR REPLACE MACRO imgmatch_turned(bits, turn, hash_type) AS list_transform(
    [imgmatch_turned_text(bits, turn, hash_type)], lambda text: from_bits(text, hash_type))[1];

CREATE OR REPLACE MACRO turned
    (hash UBIGINT, turn, hash_type := NULL) AS imgmatch_turned(to_bits(hash), turn, hash_type),
    (hash BIGINT, turn, hash_type := NULL) AS imgmatch_turned(to_bits(hash), turn, hash_type),
    (hash HUGEINT, turn, hash_type := NULL) AS imgmatch_turned(to_bits(hash), turn, hash_type),
    (hash BLOB, turn, hash_type := 'bmh1') AS imgmatch_turned(to_bits(hash), turn, hash_type);

COMMENT ON MACRO hamming IS
    'hamming(a, b): the number of bits in which two hashes of one kind differ. Example: SELECT hamming(a.bmh1, '
    'b.bmh1) FROM hashes a, hashes b';

COMMENT ON MACRO turned IS
    'turned(hash, turn, hash_type := NULL): the hash of the image after a turn, such as mirrored or rotated_90. '
    'Example: SELECT turned(bmh1, ''mirrored'') FROM hashes';

COMMENT ON MACRO from_bits IS
    'from_bits(bits, hash_type): the hash of a documented string of 0 and 1. Example: SELECT '
    'from_bits(repeat(''01'', 32), ''phash'')';

COMMENT ON MACRO hash_from_hex IS
    'hash_from_hex(digits, hash_type): the hash of hexadecimal digits. Example: SELECT '
    'hash_from_hex(''b9b9534546d1a2e9'', ''phash'')';

COMMENT ON MACRO to_points IS
    'to_points(local): the points of a local hash, a list of hash, x, y and level. Example: SELECT '
    'to_points(local) FROM hashes';

COMMENT ON MACRO hamming IS
    'hamming(a, b): the number of bits in which two hashes of one kind differ. Example: SELECT hamming(a.bmh1, '
    'b.bmh1) FROM hashes a, hashes b';

COMMENT ON MACRO turned IS
    'turned(hash, turn, hash_type := NULL): the hash of the image after a turn, such as mirrored or rotated_90. '
    'Example: SELECT turned(bmh1, ''mirrored'') FROM hashes';

COMMENT ON MACRO to_bits IS
    'to_bits(hash): the documented string of 0 and 1 of a hash. Example: SELECT to_bits(phash) FROM hashes';

COMMENT ON MACRO from_bits IS
    'from_bits(bits, hash_type): the hash of a documented string of 0 and 1. Example: SELECT '
    'from_bits(repeat(''01'', 32), ''phash'')';

COMMENT ON MACRO hash_to_hex IS
    'hash_to_hex(hash): the hexadecimal digits of a hash. Example: SELECT hash_to_hex(phash) FROM hashes';

COMMENT ON MACRO hash_from_hex IS
    'hash_from_hex(digits, hash_type): the hash of hexadecimal digits. Example: SELECT '
    'hash_from_hex(''b9b9534546d1a2e9'', ''phash'')';

COMMENT ON MACRO to_points IS
    'to_points(local): the points of a local hash, a list of hash, x, y and level. Example: SELECT '
    'to_points(local) FROM hashes';
