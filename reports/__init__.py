"""The report: tables, figures and one page, made from records alone. Never loads torch."""
