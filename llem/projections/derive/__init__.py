"""From tables of the log to figures and their rows: what is changed here is a formula, and results are derived again."""
