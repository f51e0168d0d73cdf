"""Where hashes live: DuckDB and Parquet."""
