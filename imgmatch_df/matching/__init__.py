"""Exact Hamming joins, and clusters of what they find."""
