"""The pure machine: a workflow's code, run by telling it its journal. `machine.py` tells how and why.

It imports no clock, no chance, no thread and no I/O; the worker carries out what it asks for.
"""

from troth.core.branches import OperationFuture as OperationFuture
from troth.core.events import CANCEL as CANCEL
from troth.core.events import CANCEL_PATH as CANCEL_PATH
from troth.core.events import PATCH as PATCH
from troth.core.events import PROMISE as PROMISE
from troth.core.events import STEP as STEP
from troth.core.events import TIMER as TIMER
from troth.core.events import Binding as Binding
from troth.core.events import CanceledOutcome as CanceledOutcome
from troth.core.events import Entry as Entry
from troth.core.events import Operation as Operation
from troth.core.events import Outcome as Outcome
from troth.core.events import Raised as Raised
from troth.core.events import Returned as Returned
from troth.core.loop import Evicted as Evicted
from troth.core.machine import Machine as Machine
from troth.core.machine import current as current
from troth.core.names import Scope as Scope
from troth.core.names import checked_name as checked_name
