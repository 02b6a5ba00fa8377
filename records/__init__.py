"""What is stored: records of trials, plans of studies, their folder. Never loads torch."""
