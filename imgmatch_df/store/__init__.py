"""Stores of hashes, in DuckDB and in Parquet, so that each image is hashed once."""
