"""What the proofs share. Each folder here is one way of trying to break the engine (docs/reliability.md names them all).

They are not part of `make test`: `make proof` runs them, bounded for CI; each has a longer target of its own.
"""
