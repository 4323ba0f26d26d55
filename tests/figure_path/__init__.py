"""Which modules carry a figure from the meter to the screen."""
