"""A run while it goes on, as its log shows it: figures that are good enough to look at, and no database, no device, no change of the store."""
