"""The chain room and the contract, against a real node and a real compiler."""
