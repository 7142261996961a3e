"""Compiled text kernels: arrays, bytes and strings in, arrays out; no I/O, no settings."""
