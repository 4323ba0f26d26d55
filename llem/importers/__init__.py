"""Files of other programs, a module each: how one is recognised, and what its runs were in the words of the log."""
