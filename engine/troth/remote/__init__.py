"""Exceptions that travel: from an exception to what is stored of it, and back to one of the same class. Without pickle.

`describe_error` (`describe.py`) says what is stored: type, message with notes, the last frames, the causes, the members of
a group, and of the arguments and attributes what is plain JSON (`parts.py`). All of it is bounded, and it never fails,
whatever the exception is like.

`rebuilt` (`rebuild.py`) makes the exception again: the class is imported by its name (`classes.py`), and its instance filled
without running its `__init__` or `__new__`, which may want what nobody stored. What such a class computed from other things
than JSON is not there; its attributes and `args` are as they were wherever they could be stored. Which class comes back
depends on the name and the code alone, not on the data, nor on what was imported before, so that `except` does the same at
every replay.

An exception that came back carries where it came from: as its last note, which tracebacks show, and by which it is described
when it leaves again. So it does not grow from process to process.

Nothing here knows of codecs, steps or promises.
"""

from troth.remote.describe import describe_error, text_of
from troth.remote.rebuild import rebuilt

__all__ = ["describe_error", "rebuilt", "text_of"]
