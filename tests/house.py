"""The plan of the house as rules over source text: floors, doors, sizes, habits.

Nothing of the package is imported. A rule takes one `Source` and gives its violations, each with
file, line and reason. `test_architecture.py` puts every file through every rule.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache

from sources import ROOT, Function, Source, find_imports, functions

# Room (file or package below finetune/) -> floor. A room imports from lower floors and from itself.
FLOORS = {
    "__init__": 0, "compiler": 0, "errors": 0, "types": 0, "torchvision_ops": 0, "version": 0,
    "components": 1,
    "recipe": 2,
    "runtime": 3,
    "data": 4,
    "model": 5,
    "train": 6,
    "evaluate": 7,
    "report": 8, "export": 8, "serve": 8, "doctor": 8,
    "pipeline": 9,
    "plan": 9, "resume": 9,
    "classifier": 10, "cli": 10, "demo": 10,
    "__main__": 11,
}  # fmt: skip
# The demo is a face of its own, with the command line as its door; a plan is a run's first half,
# and what is resumed is compared with a plan.
SIDEWAYS = {("cli", "demo"), ("pipeline", "plan"), ("pipeline", "resume"), ("resume", "plan")}
# Rooms of which no file, or only these, may import something heavy while it is itself imported.
LIGHT = re.compile(
    r"finetune/(\w+\.py|components/.*|recipe/.*|cli/.*|data/(index|split)\.py|(\w+/)*__init__\.py)$"
)
NOT_LIGHT = {f"finetune/{name}.py" for name in ("classifier", "pipeline", "plan", "resume")}
HEAVY = {
    "PIL", "accelerate", "albumentations", "cv2", "huggingface_hub", "jinja2", "matplotlib",
    "mlflow", "numpy", "pandas", "peft",
    "safetensors", "scipy", "sklearn", "tensorboard", "timm", "torch", "torchvision",
    "transformers", "wandb",
}  # fmt: skip
# Distribution of an import, where the names differ; albumentations brings OpenCV with it.
DISTRIBUTION_OF = {
    "PIL": "pillow", "cv2": "albumentations", "huggingface_hub": "huggingface-hub",
    "markupsafe": "jinja2", "mlflow": "mlflow-skinny", "ruamel": "ruamel.yaml",
    "sklearn": "scikit-learn",
}  # fmt: skip
# What stands behind a door: pattern of the import -> pattern of the files that may.
DOORS = {
    r"(albumentations|cv2)(\.|$)": r"finetune/components/augment\.py",
    r"(ruamel|yaml)(\.|$)": r"finetune/recipe/load\.py",
    r"(typer|click)(\.|$)": r"finetune/cli/\w+\.py",
    r"rich(\.|$)": r"finetune/cli/render\.py",
    r"(jinja2|markupsafe)(\.|$)": r"finetune/report/page\.py",
    r"(accelerate\.tracking|mlflow|tensorboard|wandb)(\.|$)": r"finetune/components/trackers\.py",
    r"matplotlib(\.|$)": r"finetune/report/plots\.py",
    r"(peft|transformers)(\.|$)": r"finetune/model/adapters\.py",
    r"timm(\.models.*|\.\w*create_model)?$": r"finetune/model/backbone\.py",
    r"timm\.(optim|data|utils|loss|scheduler)(\.|$)": (
        r"finetune/(train|components)/\w+\.py|finetune/model/backbone\.py"
    ),
}
BROAD_BORDER = "finetune/cli/app.py"  # the one place that may catch everything, once
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6
MAX_NESTING = 3
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)


def imports_upwards(source: Source) -> Iterator[str]:
    """A file imports from lower floors, or from its own room."""
    if source.path == "finetune/__init__.py":  # the lazy face names what it will import
        return
    for found in source.imports:
        if found.target.startswith("."):
            yield source.at(found.line, "imports are absolute")
        parts = found.target.split(".")
        if parts[0] != "finetune" or len(parts) == 1:
            continue
        room = parts[1] if parts[1] in FLOORS else "__init__"
        lower = FLOORS[room] < FLOORS[source.room]
        own = room == source.room or (FLOORS[room] == FLOORS[source.room] == 0)
        if not (lower or own or (source.room, room) in SIDEWAYS):
            yield source.at(
                found.line,
                f"floor {FLOORS[source.room]} ({source.room}) imports {found.target} of floor "
                f"{FLOORS[room]}; only lower floors and its own package",
            )


def passes_by_a_door(source: Source) -> Iterator[str]:
    """A library behind a door is imported by the files named for it alone."""
    for found in source.imports:
        for library, files in DOORS.items():
            if re.match(library, found.target) and not re.fullmatch(files, source.path):
                yield source.at(found.line, f"imports {found.target}; its door is {files}")
    if source.path == "finetune/model/backbone.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(
            (".create_model", "timm.models")
        ):
            yield source.at(node.lineno, "uses timm's models; their door is model/backbone.py")


def imports_without_the_remedy(source: Source) -> Iterator[str]:
    """`timm` and `torchvision` are imported below a call of `register_missing_ops`."""
    if source.path == "finetune/torchvision_ops.py":
        return
    for scope in [source.tree, *functions(source)]:
        calls = [
            node.lineno
            for node in ast.walk(scope)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "register_missing_ops"
        ]
        for found in find_imports(ast.Module(own_statements(scope), [])):
            needs = found.target.split(".")[0] in ("timm", "torchvision") and not found.for_typing
            if needs and not any(line < found.line for line in calls):
                yield source.at(found.line, f"imports {found.target} before register_missing_ops()")


def own_statements(scope: ast.Module | Function) -> list[ast.stmt]:
    """Give the statements of a scope without the functions and classes in it."""
    return [
        node
        for node in scope.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]


def is_heavy_to_import(source: Source) -> Iterator[str]:
    """Light rooms import nothing heavy; pydantic checks recipes and saved models only."""
    for found in source.imports:
        if found.in_function or found.for_typing:
            continue
        library = found.target.split(".")[0]
        light = LIGHT.match(source.path) and source.path not in NOT_LIGHT
        if light and library in HEAVY:
            yield source.at(found.line, f"imports {library} at module level; put it into the verb")
        if library == "pydantic" and source.room not in ("recipe", "components", "model"):
            yield source.at(found.line, "imports pydantic; it checks recipes and saved models only")


def uses_an_undeclared_library(source: Source) -> Iterator[str]:
    """Every library imported is a dependency that pyproject.toml declares."""
    for found in source.imports:
        library = found.target.split(".")[0]
        name = DISTRIBUTION_OF.get(library, library)
        known = library in sys.stdlib_module_names or library in ("finetune", "")
        if not known and name not in declared_dependencies():
            yield source.at(found.line, f"imports {library}, which pyproject.toml does not declare")


@cache
def declared_dependencies() -> frozenset[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    rows = project["dependencies"] + [
        row for name in extras if name not in ("dev", "docs") for row in extras[name]
    ]
    return frozenset(re.split(r"[\[<>=!~; ]", row)[0].lower() for row in rows)


def is_too_long(source: Source) -> Iterator[str]:
    """Files have at most 400 lines, functions at most 60."""
    num_lines = source.text.count("\n")
    if num_lines > MAX_FILE_LINES:
        yield source.at(num_lines, f"{num_lines} lines; at most {MAX_FILE_LINES}")
    for function in functions(source):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield source.at(
                function.lineno,
                f"{function.name} has {length} lines; at most {MAX_FUNCTION_LINES}",
            )


def takes_too_much(source: Source) -> Iterator[str]:
    """Functions take at most 6 parameters and nest at most 3 deep; faces take their flags."""
    for function in functions(source):
        spec = function.args
        names = [one.arg for one in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]]
        num_parameters = len(set(names) - {"self", "cls"})
        if num_parameters > MAX_PARAMETERS and source.room not in ("cli", "classifier"):
            yield source.at(function.lineno, f"{function.name} has {num_parameters} parameters")
        if nesting(function) > MAX_NESTING:
            yield source.at(function.lineno, f"{function.name} nests deeper than {MAX_NESTING}")


def nesting(node: ast.AST) -> int:
    """Count the deepest nesting of blocks; an `elif` is no block of its own."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            continue
        is_elif = isinstance(child, ast.If) and getattr(node, "orelse", None) == [child]
        is_block = isinstance(child, BLOCKS) and not (is_elif and isinstance(node, ast.If))
        deepest = max(deepest, nesting(child) + is_block)
    return deepest


def asserts(source: Source) -> Iterator[str]:
    """A mistake of a user is an error of the tree, never an `assert`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield source.at(node.lineno, "asserts; raise an error that says what was seen")


def catches_everything(source: Source) -> Iterator[str]:
    """No bare `except` and no `except Exception`, but one border at the command line."""
    broad = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            names = ast.unparse(node.type) if node.type else "Exception"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            names = " ".join(ast.unparse(argument) for argument in node.args)
        else:
            continue
        if re.search(r"\b(Base)?Exception\b", names):
            broad.append(node.lineno)
    allowed = 1 if source.path == BROAD_BORDER else 0
    for line in broad[allowed:]:
        yield source.at(line, "catches every exception; name what this file can translate")


def lacks_annotations(source: Source) -> Iterator[str]:
    """Every parameter and every result has a type."""
    for function in functions(source):
        if function.returns is None:
            yield source.at(function.lineno, f"{function.name} does not say what it returns")
        spec = function.args
        parameters = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
        for parameter in parameters:
            if parameter and not parameter.annotation and parameter.arg not in ("self", "cls"):
                yield source.at(parameter.lineno, f"{parameter.arg} of {function.name} has no type")


def lacks_documentation(source: Source) -> Iterator[str]:
    """Every module, every name of `__all__` and every public method of it is documented."""
    tree = source.tree
    if not ast.get_docstring(tree):
        yield source.at(1, "the module does not say what lives here")
    exported = exports(tree)
    defined = [node for node in tree.body if isinstance(node, Function | ast.ClassDef)]
    public = [node for node in defined if not node.name.startswith("_")]
    if public and exported is None:
        yield source.at(public[0].lineno, "public names, but no __all__")
    for node in defined:
        if node.name not in (exported or ()):
            continue
        members = node.body if isinstance(node, ast.ClassDef) else []
        methods = [
            member
            for member in members
            if isinstance(member, Function) and not member.name.startswith("_")
        ]
        for one in [node, *methods]:
            if not ast.get_docstring(one):
                yield source.at(one.lineno, f"{one.name} is public and not documented")


def exports(tree: ast.Module) -> list[str] | None:
    """Read `__all__`; None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def leaves_work_undone(source: Source) -> Iterator[str]:
    """No note of work to be done."""
    for number, line in enumerate(source.text.splitlines(), start=1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield source.at(number, "a note of work to be done; do it, or file it")


def exports_unknown_names(source: Source) -> Iterator[str]:
    """Every name of `__all__` is bound in the file; the lazy face binds by name."""
    if source.path == "finetune/__init__.py":
        return
    bound = {"__version__"}
    for node in source.tree.body:
        if isinstance(node, Function | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            bound |= {
                part.id if isinstance(part, ast.Name) else (part.asname or part.name)
                for part in ast.walk(node)
                if isinstance(part, ast.Name | ast.alias)
            }
    for name in exports(source.tree) or []:
        if name not in bound:
            yield source.at(1, f"__all__ has {name}, which is not defined here")
