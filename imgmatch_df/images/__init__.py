"""Encoded images to pixels: which files there are, how each format is read, and what one image may cost."""
