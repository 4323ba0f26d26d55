"""A report that can be handed out: one HTML file, drawn by Python, complete without JavaScript and without a network."""
