"""The source of the package, parsed: files, imports, and what importing a module brings with it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported module, or name of a module, and where."""

    target: str
    line: int
    in_function: bool
    for_typing: bool


@dataclass(frozen=True)
class Source:
    """One parsed file of the package."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def room(self) -> str:
        return Path(self.path).parts[1].removesuffix(".py")

    @cached_property
    def imports(self) -> list[Import]:
        return list(find_imports(self.tree))

    def at(self, line: int, said: str) -> str:
        return f"{self.path}:{line}: {said}"


def find_imports(
    node: ast.AST, in_function: bool = False, for_typing: bool = False
) -> Iterator[Import]:
    """Walk a tree; `from a import b` gives `a.b`, so that doors see the name as well."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, in_function, for_typing)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                target = f"{'.' * child.level}{child.module or ''}.{alias.name}"
                yield Import(target, child.lineno, in_function, for_typing)
        elif isinstance(child, ast.Call) and is_dynamic_import(child):
            yield Import(ast.literal_eval(child.args[0]), child.lineno, in_function, for_typing)
        inside = in_function or isinstance(child, Function)
        typing = for_typing or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from find_imports(child, inside, typing)


def is_dynamic_import(call: ast.Call) -> bool:
    """Tell whether a call imports a module by a name that stands in the source."""
    name = ast.unparse(call.func).rpartition(".")[2]
    return (
        name in ("import_module", "__import__")
        and bool(call.args)
        and isinstance(call.args[0], ast.Constant)
    )


@cache
def sources() -> tuple[Source, ...]:
    files = sorted((ROOT / "finetune").rglob("*.py"))
    return tuple(
        Source(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
        for file in files
    )


@cache
def modules() -> dict[str, Source]:
    return {source.module: source for source in sources()}


def home(target: str, known: frozenset[str]) -> str | None:
    """Find the module that an import names: `finetune.a.b.name` -> `finetune.a.b`."""
    while target:
        if target in known:
            return target
        target = target.rpartition(".")[0]
    return None


def functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def import_cycle() -> list[str]:
    """Find a cycle among the modules, imports inside functions included, those for types not."""
    known = frozenset(modules())
    graph: TopologicalSorter[str] = TopologicalSorter()
    for name, source in modules().items():
        found = {home(one.target, known) or name for one in source.imports if not one.for_typing}
        graph.add(name, *(found - {name, "finetune"}))
    try:
        graph.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def libraries_imported_by(module: str) -> dict[str, str]:
    """Follow the imports that importing a module runs: library -> the file that imports it."""
    known = frozenset(modules())
    waiting, seen, libraries = [module], set[str](), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        source = modules()[name]
        parents = [name.rsplit(".", up)[0] for up in range(1, name.count(".") + 1)]
        waiting += parents
        for found in source.imports:
            if found.in_function or found.for_typing:
                continue
            target = home(found.target, known)
            if target:
                waiting.append(target)
            else:
                libraries.setdefault(found.target.split(".")[0], source.at(found.line, name))
    return libraries
