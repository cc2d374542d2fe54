"""`make gas`: what the contract costs, read from the receipts of real chain transactions on a fresh local chain.

`yard.py` has the chain and everybody on it, `scenes.py` what is measured, `snapshot.py` the figures that are committed and
when they have become worse, `profile.py` where the gas of one transaction goes, `__main__.py` the command.
"""
