"""The embedded stack: the real PostgreSQL, Valkey and anvil, and the project's own processes, as children of a command.

`stack` puts them together; `supervisor` keeps them; one module for each server. Nothing here needs Django to be set up.
"""
