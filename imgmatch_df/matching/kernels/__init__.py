"""The numba kernels of joins and clusters."""
