"""Mutants of a Python module: one operator, constant, condition, return or statement at a time."""

import ast
from collections.abc import Iterator
from itertools import pairwise

from mutant import Mutant

COMPARES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
SUMS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
}


def mutate_python(text: str, file: str) -> Iterator[Mutant]:
    """Yield the mutants of a module, with the function that each is in."""
    module = ast.parse(text)
    yield from _Place(text, file).visit_all(module, "")


class _Place:
    """Walks a module's tree; knows where each node stands in the text."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._lines = [0]
        for line in text.encode().splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._bytes = text.encode()

    def visit_all(self, node: ast.AST, owner: str) -> Iterator[Mutant]:
        for child in ast.iter_child_nodes(node):
            inner = owner
            if isinstance(child, ast.FunctionDef) and not owner:
                inner = f"{child.name}:{min([child.lineno, *(mark.lineno for mark in child.decorator_list)])}"
            if not isinstance(child, ast.arg | ast.AnnAssign | ast.JoinedStr) or inner:
                yield from self._operators(child, inner)
                yield from self._statements(child, inner)
                yield from self.visit_all(child, inner)

    def _operators(self, node: ast.AST, owner: str) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left, [operator], [right]):
                yield from self._between(left, right, *COMPARES[type(operator)], owner)
            case ast.BoolOp(joined, values):
                was, other = ("and", "or") if isinstance(joined, ast.And) else ("or", "and")
                for left, right in pairwise(values):
                    yield from self._between(left, right, was, other, owner)
            case ast.BinOp(left, operator, right) if type(operator) in SUMS:
                yield from self._between(left, right, *SUMS[type(operator)], owner)
            case ast.UnaryOp(ast.Not(), operand):
                yield self._change(node, self._source(operand), owner)
            case ast.Constant(value) if isinstance(value, bool):
                yield self._change(node, str(not value), owner)
            case ast.Constant(value) if isinstance(value, int | float):
                yield self._change(node, repr(value + 1), owner)

    def _statements(self, node: ast.AST, owner: str) -> Iterator[Mutant]:
        match node:
            case ast.If(test) | ast.While(test):
                yield self._change(test, "False", owner)
                if isinstance(node, ast.If):
                    yield self._change(test, "True", owner)
            case ast.IfExp(test) | ast.comprehension(ifs=[test]):
                yield self._change(test, "False", owner)
                yield self._change(test, "True", owner)
            case ast.Return(value) if value is not None and not (
                isinstance(value, ast.Constant) and value.value in {None, False}
            ):
                yield self._change(value, "None", owner)
            case ast.Expr(ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
                yield self._change(node, "pass", owner)

    def _between(self, left: ast.AST, right: ast.AST, was: str, other: str, owner: str) -> Iterator[Mutant]:
        start, end = self._span(left)[1], self._span(right)[0]
        at = self._text.find(f"{was}", start, end)
        if at >= 0:
            yield self._at(at, at + len(was), other, owner)

    def _change(self, node: ast.AST, other: str, owner: str) -> Mutant:
        return self._at(*self._span(node), other, owner)

    def _at(self, start: int, end: int, other: str, owner: str) -> Mutant:
        return Mutant(self._file, self._text.count("\n", 0, start) + 1, start, end, other, owner)

    def _source(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._text[start:end]

    def _span(self, node: ast.AST) -> tuple[int, int]:
        place = node if isinstance(node, ast.expr | ast.stmt) else None
        if place is None or place.end_lineno is None or place.end_col_offset is None:
            raise TypeError(f"{node} stands nowhere")
        start = self._lines[place.lineno - 1] + place.col_offset
        end = self._lines[place.end_lineno - 1] + place.end_col_offset
        return len(self._bytes[:start].decode()), len(self._bytes[:end].decode())
