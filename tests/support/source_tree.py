"""The package's files as syntax trees, and which of them imports which. Nothing here imports the package itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE_NAME = "caffeconv"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One name that an import statement asks for; `import a.b` asks for a module and no name of it."""

    module: str
    name: str | None = None

    @property
    def room(self) -> str | None:
        """The room of caffeconv it is from: None for other packages, and empty for caffeconv itself."""
        package, _, rest = self.module.partition(".")
        return rest.partition(".")[0] if package == PACKAGE_NAME else None

    def is_of(self, package: str) -> bool:
        """Whether it is a package, as `onnx`, or something of it, as `onnx.helper`."""
        return self.module.partition(".")[0] == package


@dataclass(frozen=True)
class SourceFile:
    """A file of the package; `name` is its path below the package, with slashes."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; a file is parsed once."""
        return ast.parse(self.text, self.name)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the syntax tree."""
        return tuple(ast.walk(self.tree))

    @property
    def room(self) -> str:
        """The first folder of the path, or the module's name at the top of the package."""
        return self.name.split("/")[0].removesuffix(".py")

    @property
    def module(self) -> str:
        """The dotted name by which the file is imported; a package's `__init__` has the package's name."""
        parts = (PACKAGE_NAME, *self.name.removesuffix(".py").split("/"))
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def imports(self) -> frozenset[Import]:
        """What all import statements ask for: those at load time, in functions and for types only; names are absolute."""
        return frozenset(self._imports())

    def _imports(self) -> Iterator[Import]:
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (Import(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (Import(self._origin(node), alias.name) for alias in node.names)

    def _origin(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module after `from`, which may start with dots."""
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        levels = node.level - self.name.endswith("__init__.py")
        return ".".join([*parts[: len(parts) - levels], *([node.module] if node.module else [])])

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """String literals, those inside f-strings too, without docstrings."""
        docs = {node.value for node in self.nodes if isinstance(node, ast.Expr)}
        constants = (node for node in self.nodes if isinstance(node, ast.Constant) and node not in docs)
        return tuple(node.value for node in constants if isinstance(node.value, str))

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """Values that are assigned to names at the top of the module."""
        return {name: value for statement in self.tree.body for name, value in _assigned(statement)}

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        """All classes, inner ones too."""
        return (node for node in self.nodes if isinstance(node, ast.ClassDef))

    @property
    def functions(self) -> Iterator[FunctionNode]:
        """All functions, methods and inner ones too."""
        return (node for node in self.nodes if isinstance(node, FunctionNode))


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of `A = 1`, `A = B = 1` and `A: int = 1`."""
    if isinstance(statement, ast.Assign):
        yield from ((target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value


@dataclass(frozen=True)
class SourceTree:
    """All Python files below the package's folder."""

    root: Path

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """Sorted by name."""
        paths = ((path.relative_to(self.root).as_posix(), path) for path in self.root.rglob("*.py"))
        return tuple(SourceFile(name, path.read_text(encoding="utf-8")) for name, path in sorted(paths))

    @cached_property
    def by_module(self) -> dict[str, SourceFile]:
        """Files by the dotted name that imports use."""
        return {file.module: file for file in self.files}

    @property
    def top_entries(self) -> set[str]:
        """Names at the top of the package; a folder counts where a file is in it that is not compiled Python."""
        paths = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {path.parts[0] for path in paths if "__pycache__" not in path.parts}

    def target(self, request: Import) -> SourceFile | None:
        """The file an import names: a submodule where the name is one, else the module; None for other packages."""
        submodule = self.by_module.get(f"{request.module}.{request.name}")
        return submodule or self.by_module.get(request.module)

    def neighbours(self, file: SourceFile) -> list[str]:
        """Names of the files that this one makes Python, or a type checker, read.

        A file that imports `a.b` loads `a/__init__.py` too. That counts unless the file is itself below `a`: then
        `a/__init__.py` runs already, and may well be the one that asks, to hand names of its modules on.
        """
        targets = {target for request in file.imports if (target := self.target(request))}
        packages = {package for target in targets for package in self._packages(target)} - self._packages(file)
        return sorted({other.name for other in targets | packages if other != file})

    def _packages(self, file: SourceFile) -> set[SourceFile]:
        """The `__init__` files of the packages a file lies in, without that of caffeconv."""
        parts = file.module.split(".")
        names = (".".join(parts[:length]) for length in range(2, len(parts)))
        return {self.by_module[name] for name in names if name in self.by_module}
