"""How fast Troth is, beside its peers and beside a bare floor, on the machine where it runs (docs/benchmarks.md)."""
