-- What the macros are for: the view imgmatch_help, one row for each, the most used first.
--
-- Columns: name, signature, description, example, all VARCHAR. The same texts are the comments of the macros, which
-- duckdb_functions() shows. Macros whose names begin with imgmatch_ are parts of the others.
--
--   FROM imgmatch_help;
--   SELECT example FROM imgmatch_help WHERE name = 'copies';

CREATE OR REPLACE VIEW imgmatch_help AS
    SELECT name, signature, description, example
    FROM (VALUES
        (1, 'copies',
            'copies(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', flat := ''identical'')',
            'each cluster in one row: kept, copies, farthest, bytes and the ids of the removed rows, most copies '
            || 'first',
            'FROM copies(24)'),
        (2, 'near_duplicates',
            'near_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', '
            || 'max_pairs := 100000000, flat := ''identical'')',
            'every pair of rows within radius bits: left_id, right_id, distance',
            'FROM near_duplicates(4, ''phash'')'),
        (3, 'matches',
            'matches(tbl, radius, reference := ''hashes'', hash_type := ''bmh1'', id := ''source'', '
            || 'reference_id := ''source'', max_pairs := 100000000, flat := ''identical'')',
            'every row of tbl with the rows of reference within radius bits, nearest first: query_id, '
            || 'reference_id, distance',
            'FROM matches(''today.parquet'', 24, id := ''path'')'),
        (4, 'rank_images',
            'rank_images(query, k := NULL, tbl := ''hashes'', hash_type := NULL, flat := ''identical'', '
            || 'id := ''source'')',
            'the k rows nearest to a stored image or a hash, with rank and distance; query is a value of id, '
            || 'hexadecimal digits, 0 and 1, a number or a BLOB',
            'FROM rank_images(''photos/beach.jpg'', 10)'),
        (5, 'duplicate_clusters',
            'duplicate_clusters(radius, hash_type := ''bmh1'', tbl := ''hashes'', id := ''source'', '
            || 'flat := ''identical'')',
            'every row with cluster_id, kept, distance and representative_id',
            'FROM duplicate_clusters(24)'),
        (6, 'remove_duplicates',
            'remove_duplicates(radius, hash_type := ''bmh1'', tbl := ''hashes'', flat := ''identical'')',
            'the kept row of each cluster, with removed_records, the others',
            'FROM remove_duplicates(24)'),
        (7, 'radius_profile',
            'radius_profile(max_radius, hash_type := ''bmh1'', tbl := ''hashes'', max_pairs := 1000000, '
            || 'flat := ''identical'')',
            'numbers of pairs, clusters and removed rows at each radius from 0',
            'FROM radius_profile(48)'),
        (8, 'hamming',
            'hamming(a, b)',
            'the number of bits in which two hashes of one kind differ',
            'SELECT hamming(a.bmh1, b.bmh1) FROM hashes a, hashes b'),
        (9, 'turned',
            'turned(hash, turn, hash_type := NULL)',
            'the hash of the image after a turn, such as mirrored or rotated_90',
            'SELECT turned(bmh1, ''mirrored'') FROM hashes'),
        (10, 'to_bits',
            'to_bits(hash)',
            'the documented string of 0 and 1 of a hash',
            'SELECT to_bits(phash) FROM hashes'),
        (11, 'from_bits',
            'from_bits(bits, hash_type)',
            'the hash of a documented string of 0 and 1',
            'SELECT from_bits(repeat(''01'', 32), ''phash'')'),
        (12, 'hash_to_hex',
            'hash_to_hex(hash)',
            'the hexadecimal digits of a hash',
            'SELECT hash_to_hex(phash) FROM hashes'),
        (13, 'hash_from_hex',
            'hash_from_hex(digits, hash_type)',
            'the hash of hexadecimal digits',
            'SELECT hash_from_hex(''b9b9534546d1a2e9'', ''phash'')'),
        (14, 'to_points',
            'to_points(local)',
            'the points of a local hash, a list of hash, x, y and level',
            'SELECT to_points(local) FROM hashes')
    ) AS macros(position, name, signature, description, example)
    ORDER BY position;

COMMENT ON VIEW imgmatch_help IS 'What the macros of imgmatch are for: FROM imgmatch_help';
