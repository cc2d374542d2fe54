"""Faults on purpose: proxies before a node and before the database or the broker, which fail as they are told."""
