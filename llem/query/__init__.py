"""Read-only SQL over the projections, run in a child process that can do nothing else."""
