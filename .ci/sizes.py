"""Print what is longer than this project likes: files over 500 lines, functions over 60.  Never fails."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def main() -> None:
    """Look at the package and at its tests."""
    for folder in ("iscsi_twisted", "tests"):
        lengths = []
        for path in sorted(Path(folder).rglob("*.py")):
            source = path.read_text("utf-8")
            if (lines := source.count("\n")) > 500:
                print(f"{path}: {lines} lines")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lengths.append(length(node))
                    if lengths[-1] > 60:
                        print(f"{path}:{node.lineno}: {node.name} has {lengths[-1]} lines")
        lengths.sort()
        nine = lengths[len(lengths) * 9 // 10]
        print(
            f"{folder}: {len(lengths)} functions, median {median(lengths):.0f} lines, nine in ten to {nine}"
        )


if __name__ == "__main__":
    main()
