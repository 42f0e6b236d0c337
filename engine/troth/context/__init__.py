"""What workflow code is given (`Context`), what its steps can ask (`step_info`), and what both ask of the worker (`requests`)."""

from troth.context.context import Child as Child
from troth.context.context import Context as Context
from troth.context.context import Promise as Promise
from troth.context.info import StepInfo as StepInfo
from troth.context.info import step_info as step_info
