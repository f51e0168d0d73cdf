"""Numba kernels for the parts of files that Pillow reads slowly or not at all."""
