-- Hashes: their distance, and the documented 0/1 strings.
--
-- A phash is a UBIGINT of 64 bits, a bmh1 a BLOB of 121 bytes (968 bits, the last 7 always 0).
--
--   hamming(a, b)               USMALLINT: the number of bits in which two hashes of one kind differ. NULL where either
--                               is NULL. An error for hashes of two kinds, or BLOBs of two widths.
--   to_bits(hash)               VARCHAR: the documented string of 64 or 968 characters 0 and 1, each byte most
--                               significant bit first.
--   from_bits(bits, hash_type)  UBIGINT for 'phash', BLOB for 'bmh1': the hash that such a string stands for. An error
--                               for any other string.
--
--   SELECT hamming(a.bmh1, b.bmh1) FROM hashes a, hashes b WHERE a.source = 'one.jpg' AND b.source = 'two.jpg';
--   SELECT to_bits(phash) FROM hashes;
--
-- The macros of all files here look for each other, and for tables, where the shell looks: open the file itself, or USE
-- it where it is attached. Reading a file of macros again changes nothing. DuckDB 1.5 or later; CASE, because 1.5 does
-- not know the function that 2.0 stores for if().

-- The integer overloads differ so that literals, which are signed, are hashes too.
CREATE OR REPLACE MACRO hamming
    (a UBIGINT, b UBIGINT) AS bit_count(xor(a, b))::USMALLINT,
    (a HUGEINT, b HUGEINT) AS bit_count(xor(a::UBIGINT, b::UBIGINT))::USMALLINT,
    (a BLOB, b BLOB) AS CASE
        WHEN octet_length(a) = octet_length(b) THEN bit_count(xor(a::BIT, b::BIT))::USMALLINT
        WHEN a IS NOT NULL AND b IS NOT NULL THEN error(format(
            'hamming: cannot compare hashes of {} bytes with hashes of {} bytes. Hint: both must be of one kind.',
            octet_length(a), octet_length(b)))
    END,
    (a "NULL", b "NULL") AS NULL::USMALLINT;

CREATE OR REPLACE MACRO to_bits
    (hash UBIGINT) AS hash::BIT::VARCHAR,
    (hash HUGEINT) AS hash::UBIGINT::BIT::VARCHAR,
    (hash BLOB) AS hash::BIT::VARCHAR,
    (hash "NULL") AS NULL::VARCHAR;

CREATE OR REPLACE MACRO imgmatch_check_bits(bits, n_bits) AS CASE
    WHEN length(bits) = n_bits AND trim(bits, '01') = '' THEN bits
    WHEN bits IS NOT NULL THEN error(format(
        'from_bits: got {:.80} ({} characters), expected {} characters of 0 and 1. Hint: phash has 64, bmh1 968.',
        bits, length(bits), n_bits))
END;

-- The field of a struct is chosen while the query is bound, so that each kind keeps its type.
CREATE OR REPLACE MACRO from_bits(bits, hash_type) AS struct_extract({
    'phash': CASE WHEN hash_type = 'phash' THEN imgmatch_check_bits(bits, 64)::BIT::UBIGINT END,
    'bmh1': CASE WHEN hash_type = 'bmh1' THEN imgmatch_check_bits(bits, 968)::BIT::BLOB END
}, hash_type);
