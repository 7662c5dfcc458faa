"""Digest of code that ignores what does not change training: comments, docstrings, layout."""

import ast
import hashlib
from pathlib import Path


def code_digest(folder: Path) -> str:
    """Digest of all Python files below a folder, as Python reads them: comments and layout do not count.

    Docstrings are left out, too. The same code has different digests under different versions of Python,
    whose syntax trees differ.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + meaning(path.read_bytes()))
    return digest.hexdigest()[:16]


def meaning(source: bytes) -> bytes:
    """The syntax tree of a module without docstrings, as text; the source itself if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree).encode()
