"""The numba kernels that hash pixels."""
