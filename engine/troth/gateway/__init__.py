"""Gateways: the only modules that speak with a Postgres driver.

A gateway executes a `Call` and answers what its rows say: `pool` on connections of its own (asyncpg), `blocking` on one of
its own (psycopg), `borrowed` on a connection, and so in a transaction, of the caller's.
"""
