"""Simulated NVIDIA GPUs for any machine with a C compiler."""
