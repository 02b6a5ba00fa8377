"""Numbers, tables and figures, from records alone. Never loads torch."""
