"""The numba kernels: arrays in, arrays out, no I/O. Import the module that is needed; this package imports none."""
