"""The pages of the documentation as programs: what a reader would copy, run where it stands.

A page's Python is one module: what stands in an earlier block is there in a later one. The module has the line numbers of
the page, so tracebacks, mypy and the list of lines that never ran all point into the page itself. A block that awaits at its
top level becomes an `async def block_<line>(troth)`, for which its fence has room. While a page is played, each statement
notes that it ran; one that never did was not tried, and makes the test fail.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

HOME: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    page for page in (HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))) if page.name != "testing.md"
)
"""All pages but `testing.md`, whose blocks are tests (`test_testing_page.py`)."""

GIVEN: Final = {HOME / "README.md": "from typing import Any; dsn: str; my_connection: Any"}
"""What a page's blocks use without defining it."""

_FENCED: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences; `line` is that of the first fence."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def lines(self) -> range:
        """The lines of its text in the page."""
        return range(self.line + 1, self.line + 1 + self.text.count("\n"))

    @property
    def file(self) -> str | None:
        """The name that a block's first line gives it: `# order.py`."""
        named = re.match(r"# (\w+\.py)\b", self.text)
        return named[1] if named else None

    @property
    def is_program(self) -> bool:
        """Whether it is to be run as it is."""
        return "__main__" in self.text

    @property
    def awaits(self) -> bool:
        """Whether it awaits outside of any function."""
        tree = ast.parse(self.text)
        inner = (ast.AsyncFunctionDef, ast.FunctionDef, ast.ClassDef)
        return any(
            isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor)
            for statement in tree.body
            if not isinstance(statement, inner)
            for node in ast.walk(statement)
        )


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a page in one language."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in _FENCED.finditer(text)
        if found[1] == language
    ]


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a `console` block, each with what is shown below it."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    found = [part.partition("\n") for part in parts if part.strip()]
    return [(command.partition("  #")[0].strip(), shown.strip()) for command, _, shown in found]


def modules(page: Path) -> dict[str, list[Block]]:
    """A page's Python blocks by module: those that are named as a file of their own, and all others as one."""
    found: dict[str, list[Block]] = {name_of(page): []}
    for number, block in enumerate(blocks(page, "python")):
        file = block.file if number else None  # the first is the page's own
        found.setdefault(file.removesuffix(".py") if file else name_of(page), []).append(block)
    return found


def name_of(page: Path) -> str:
    """What the page itself is called as a module."""
    return f"{page.parent.name}_{page.stem.replace('-', '_')}"


def source(page: Path, module: str) -> str:
    """One of a page's modules, each line where it stands in the page."""
    lines = [""] * (page.read_text().count("\n") + 1)
    lines[0] = "from troth import Troth; " + GIVEN.get(page, "")
    for block in modules(page)[module]:
        text = block.text
        if block.awaits:
            lines[block.line - 1] = f"async def block_{block.line}(troth: Troth) -> None:"
            text = textwrap.indent(text, "    ")
        given = text.splitlines()
        lines[block.line : block.line + len(given)] = given
    return "\n".join(lines) + "\n"


class Played:
    """A page while it is played: its names as attributes, and which of its statements ran."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self._noted: set[int] = set()
        self._ran: set[int] = set()
        # what runs in processes of its own notes nothing here
        programs = [each for each in blocks(page, "python") if each.is_program]
        self._elsewhere = {line for each in programs for line in each.lines}
        self.files = {name: self._loaded(name) for name in modules(page)}

    def _loaded(self, name: str) -> types.ModuleType:
        tree = ast.parse(source(self.page, name), str(self.page))
        _Noting(self._noted).visit(tree)
        module = sys.modules[name] = types.ModuleType(name)  # exceptions are found by it when they come back
        vars(module).update(__ran__=self._ran.add, __file__=str(self.page))
        exec(compile(ast.fix_missing_locations(tree), str(self.page), "exec"), vars(module))
        return module

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self.files[name_of(self.page)], name)
        except AttributeError:
            raise AttributeError(f"{self.page.name} has no {name!r}") from None

    def block(self, containing: str) -> Callable[..., Awaitable[None]]:
        """The one block awaiting at its top level that contains this text."""
        (found,) = (b for b in blocks(self.page, "python") if b.awaits and containing in b.text)
        return cast("Callable[..., Awaitable[None]]", getattr(self, f"block_{found.line}"))

    def sql(self, containing: str) -> list[str]:
        """The statements of the one SQL block that contains this text."""
        (found,) = (b for b in blocks(self.page, "sql") if containing in b.text)
        return [each for each in found.text.split(";\n") if each.strip()]

    @property
    def never_ran(self) -> list[str]:
        """The lines of statements that nobody has tried."""
        lines = self.page.read_text().splitlines()
        left = sorted(self._noted - self._ran - self._elsewhere)
        return [f"{self.page.name}:{n}: {lines[n - 1].strip()}" for n in left]

    def close(self) -> None:
        """Forget its modules."""
        for name in self.files:
            sys.modules.pop(name, None)


def page(name: str) -> Path:
    """The page of this path, from `docs`."""
    (found,) = (page for page in PAGES if page == (HOME / "docs" / name).resolve())
    return found


class _Noting(ast.NodeTransformer):
    """Puts before each statement one that notes its line."""

    def __init__(self, noted: set[int]) -> None:
        self._noted = noted

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [each for one in statements for each in self._with_note(one)])
        return node

    def _with_note(self, statement: ast.stmt) -> list[ast.stmt]:
        if _says_nothing(statement):
            return [statement]
        self._noted.add(statement.lineno)
        call = ast.Call(ast.Name("__ran__", ast.Load()), [ast.Constant(statement.lineno)], [])
        return [ast.copy_location(ast.Expr(call), statement), statement]


def _says_nothing(statement: ast.stmt) -> bool:
    """A docstring, or what must stand first in a file."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
