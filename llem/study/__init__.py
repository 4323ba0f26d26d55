"""Studies: configurations measured in blocks, in a drawn order, with the log as the only record of what is done."""
