"""The notary: what the signing process knows. It holds the keys, looks at each thing that it is asked to sign, and says no.

rules.py says which chain transactions and messages may be signed at all, and is pure; batches.py compares a batch with the
payments in the database; journal.py remembers what was signed; desk.py puts them together; server.py is the socket.
Whoever asks it is not trusted, and neither is what the database says about what was signed before.
"""
