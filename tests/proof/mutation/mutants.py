"""Small ways of getting a Python file wrong, each made in one place of its text.

A mutant is the file with one expression or statement replaced: a comparison by its neighbour, a number by the next one, a
condition by its opposite, two branches by each other, a statement by `pass`, what is returned by None. The rest of the text
stays as it is, so that a traceback through a mutant still names the lines of the original.

Left alone is what changes nothing but words: annotations, docstrings, messages, assertions, `if TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
KINDS = ("comparison", "off by one", "negation", "swapped branches", "deleted statement", "returned None")


@dataclass(frozen=True)
class Mutant:
    """One way of getting a file wrong: `text` is the whole of it."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.before}  ->  {self.after}"


def mutants(file: str, text: str) -> list[Mutant]:
    """All mutants of a file, in the order of their places."""
    found = []
    for node in _judged(ast.parse(text)):
        for kind, after in _variants(node):
            assert isinstance(node, ast.expr | ast.stmt)
            start, end = _span(text, node)
            found.append(
                Mutant(
                    file,
                    node.lineno,
                    kind,
                    _short(text[start:end]),
                    _short(after),
                    f"{text[:start]}{after}{text[end:]}",
                )
            )
    return found


def _judged(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that say what the code does."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _says_nothing(child):
                yield from _judged(child)


def _says_nothing(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Assert() | ast.JoinedStr() | ast.Import():
            return True
        case ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
        case _:
            return False


def _variants(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What could stand in a node's place."""
    match node:
        case ast.Compare(left=left, ops=[op, *others], comparators=comparators):
            yield (
                "comparison",
                _text(ast.Compare(left, [COMPARISONS[type(op)](), *others], comparators)),
            )
        case ast.BoolOp(op=op, values=values):
            yield "negation", _text(ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "negation", _text(operand)
        case ast.Constant(value=bool(value)):
            yield "negation", str(not value)
        case ast.Constant(value=int(value)):
            yield "off by one", str(value + 1)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield (
                "off by one",
                _text(ast.BinOp(left, ast.Sub() if isinstance(op, ast.Add) else ast.Add(), right)),
            )
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "swapped branches", _text(ast.IfExp(test, orelse, body))
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "returned None", "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete() | ast.AugAssign():
            yield "deleted statement", "pass"
        case ast.Continue() | ast.Break():
            yield "deleted statement", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield "deleted statement", "pass"
        case _:
            pass
    yield from _conditions(node)


def _conditions(node: ast.AST) -> Iterator[tuple[str, str]]:
    # the whole statement is written anew: its parts have no place of their own to be replaced at
    match node:
        case ast.If(test=test, body=body, orelse=orelse):
            if not isinstance(test, ast.Compare | ast.UnaryOp):  # those have their own opposite
                yield "negation", _block(node, ast.If(ast.UnaryOp(ast.Not(), test), body, orelse))
            if orelse:
                yield "swapped branches", _block(node, ast.If(test, orelse, body))
        case ast.While(test=test, body=body, orelse=orelse) if not isinstance(test, ast.Constant):
            yield "negation", _block(node, ast.While(ast.UnaryOp(ast.Not(), test), body, orelse))
        case _:
            pass


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _block(original: ast.stmt, mutated: ast.stmt) -> str:
    lines = ast.unparse(ast.fix_missing_locations(mutated)).split("\n")
    return f"\n{' ' * original.col_offset}".join(lines)


def _span(text: str, node: ast.expr | ast.stmt) -> tuple[int, int]:
    """Where a node's text begins and ends. The parser counts columns in bytes of UTF-8."""
    lines = text.splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None

    def at(line: int, column: int) -> int:
        before = lines[line - 1].encode()[:column].decode()
        return sum(map(len, lines[: line - 1])) + len(before)

    return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 120 else f"{words[:117]}..."
