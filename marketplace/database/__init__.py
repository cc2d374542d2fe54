"""Django's PostgreSQL, with an end to how long the web waits for an answer. Lives here: that backend (`base`), nothing else."""
