"""Expressions and verbs on Polars frames."""
