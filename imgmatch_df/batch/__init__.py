"""Hashing of batches of sources, in threads or in separate processes."""
