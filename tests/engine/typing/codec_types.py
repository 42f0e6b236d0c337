"""What type checkers infer of the codec; `test_codec.py` compares."""

from typing import Literal

from troth.codec import Payloads, decode

reveal_type(decode(b"1", int))
reveal_type(decode(b"1", int | None))
reveal_type(decode(b"1", Literal["yes", "no"]))
reveal_type(decode(b"1", dict[str, list[int]]))
reveal_type(Payloads().open(b"1", None, bool))
