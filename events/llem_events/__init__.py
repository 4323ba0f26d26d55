"""The event log of llem: append-only segments of zstd frames, readable without llem."""
