"""What tests of workflows, and of Troth itself, need: a clock that can be moved, and the invariants as a view.

It works on a namespace made for tests, as its owner or a superuser. Nothing of it is reachable from a namespace that
was merely migrated.
"""
