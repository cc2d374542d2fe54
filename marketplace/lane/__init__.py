"""The hot path beside Django: `POST /v1/payments`, many requests in one statement.

`door` speaks HTTP, `batches` lets requests that arrive while one batch commits form the next, `statement` is the SQL.
"""
