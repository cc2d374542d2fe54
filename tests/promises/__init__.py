"""The promises of docs/PROMISES.md and the tests that prove them.

Which they are (`marks`), the page (`page`), a run of them (`record`, `verdict`), and tests where no other proved a promise.
"""
