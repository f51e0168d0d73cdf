"""The numba kernels that read what Pillow reads slowly or not at all."""
