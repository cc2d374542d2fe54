"""The `agentmarket` command: proofs and ways out for people, with nothing but a node. Needs `agentmarket[chain]`."""
