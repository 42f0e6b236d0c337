"""How fast Troth is, measured through its public face. `python -m bench` sets up its own Postgres and prints a table."""
