"""YAML 1.2 to recipes and back; the only file that knows YAML.

Notable choices: a file is read as a tree of nodes, so that every problem has its line, and only
plain values are made of it: no tag, no anchor, no merge key, so that a stranger's recipe can
neither run code nor grow beyond its own size. A key given twice is a problem. `--set` is merged
before validation, so that all problems are found together.
"""

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from finetune.errors import Problem, RecipeError
from finetune.recipe.builtin import find_recipe
from finetune.recipe.schema import Recipe, ResolvedRecipe
from finetune.recipe.values import to_values, with_value

__all__ = ["dump_recipe", "load_recipe", "locate", "parse_recipe"]

_MAX_BYTES = 1_000_000  # a recipe has a few hundred; anything larger is another kind of file
_TAG = "tag:yaml.org,2002:"
_SCALARS = ("bool", "float", "int", "null")
_TEXTS = ("str", "timestamp")  # YAML 1.2 has no dates; what looks like one is text
_LINE_WIDTH = 100_000  # longer than any value: a comment must stay on the line of its value


@dataclass
class _Document:
    """What reading a text gives: plain values, the line of each by dotted path, and problems."""

    values: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, *, overrides: Sequence[str] = ()
) -> Recipe:
    """Load a recipe and check it whole.

    Args:
        source: The name of a recipe that ships with the package, the path of a YAML file, a
            mapping, or a recipe; of a resolved one, the recipe that repeats it.
        overrides: Values to set before the check, each `PATH=VALUE`: `stages.0.epochs=3`. The
            value is read as YAML.

    Raises:
        RecipeError: All problems at once, each with its dotted path and its line in the file.
    """
    if isinstance(source, Recipe):
        source = to_values(source)
    if isinstance(source, Mapping):
        return _build(_Document(dict(source)), None, overrides)
    is_name = isinstance(source, str) and _is_name(source)
    path = find_recipe(str(source)) if is_name else Path(source)
    return parse_recipe(_read_file(path), source=str(source), overrides=overrides)


def parse_recipe(text: str, *, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Make a recipe from YAML text.

    Args:
        text: A YAML 1.2 mapping.
        source: What the errors call it: a file's path.
        overrides: As in `load_recipe`.

    Raises:
        RecipeError: All problems at once, each with its dotted path and its line.
    """
    document = _read_yaml(text, source=source)
    if document.values is None:
        raise RecipeError(
            [Problem("", "is empty: a recipe is a mapping of names and values")],
            source=source,
            hint="finetune recipes show default",
        )
    if not isinstance(document.values, dict):
        raise RecipeError(
            [Problem("", "is no recipe: a recipe is a mapping of names and values", line=1)],
            source=source,
            hint="finetune recipes show default",
        )
    return _build(document, source, overrides)


def locate(problems: Sequence[Problem], *, source: str | Path) -> list[Problem]:
    """Give problems that were found in a loaded recipe the lines of their values.

    Args:
        problems: Without lines.
        source: The name or the file that the recipe was loaded from.
    """
    is_name = isinstance(source, str) and _is_name(source)
    path = find_recipe(str(source)) if is_name else Path(source)
    lines = _read_yaml(_read_file(path), source=str(source)).lines
    return [_placed(problem, lines, ()) for problem in problems]


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML that loads as an equal recipe.

    Args:
        recipe: Of a plain recipe what departs from the defaults is written; of a resolved one every
            value, with the reason for each automatic one as a comment on its line.
    """
    is_resolved = isinstance(recipe, ResolvedRecipe)
    reasons = recipe.reasons if isinstance(recipe, ResolvedRecipe) else {}
    values = to_values(recipe, is_complete=is_resolved, mode="json")
    tree = _to_tree(values, place="", reasons=reasons)
    if is_resolved:
        tree.yaml_set_start_comment("What this run did; `finetune run --recipe` repeats it.\n")
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = _LINE_WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _is_name(source: str) -> bool:
    """Whether a text is a recipe's name and not a path: a plain word, no file's ending."""
    path = Path(source)
    return path.name == source and path.suffix not in (".yaml", ".yml") and not os.path.isfile(path)


def _read_file(path: Path) -> str:
    """Read a recipe's file; what the system says against it becomes one sentence."""
    hint = "finetune recipes ls lists the recipes that ship with finetune"
    try:
        if path.is_dir():
            inner = path / "recipe.yaml"
            hint = f"did you mean {inner}?" if inner.is_file() else hint
            message = "is a folder; a recipe is a YAML file"
        elif path.stat().st_size > _MAX_BYTES:
            message = f"has {path.stat().st_size:,} bytes; that is no recipe"
        else:
            return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        problem = Problem("", f"is not UTF-8 text: {error.reason}", line=line)
        raise RecipeError([problem], source=str(path)) from error
    except FileNotFoundError as error:
        raise RecipeError(
            [Problem("", "there is no such file")], source=str(path), hint=hint
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError([Problem("", f"cannot be read: {reason}")], source=str(path)) from error
    raise RecipeError([Problem("", message)], source=str(path), hint=hint)


def _build(document: _Document, source: str | None, overrides: Sequence[str]) -> Recipe:
    """Set the overrides and validate; all problems are raised together, by line."""
    problems, values = list(document.problems), document.values
    paths = []
    for override in overrides:
        path, equals, text = override.partition("=")
        try:
            values = with_value(values, path, _read_flag(override, path, text, equals=equals))
            paths.append(path)
        except RecipeError as error:
            problems += [_from_flag(problem) for problem in error.problems]
    try:
        recipe = Recipe.read(values)
    except RecipeError as error:
        unread = [problem.path for problem in document.problems if problem.path]
        problems += [
            _placed(problem, document.lines, paths)
            for problem in error.problems
            if not any(_is_beneath(problem.path, path) for path in unread)
        ]
    if problems:
        last = max(document.lines.values(), default=0) + 1
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or last), source=source)
    return recipe


def _read_flag(override: str, path: str, text: str, *, equals: str) -> Any:
    """Read the value of a `PATH=VALUE`."""
    if not path or not equals:
        raise RecipeError([Problem("", f"PATH=VALUE is wanted, got {override!r}")])
    try:
        document = _read_yaml(text, source=path)
    except RecipeError as error:
        raise RecipeError([Problem(path, error.problems[0].message)]) from error
    if document.problems:
        raise RecipeError([Problem(path, problem.message) for problem in document.problems])
    return document.values


def _placed(problem: Problem, lines: Mapping[str, int], is_set: Sequence[str]) -> Problem:
    """Give a problem the line of its value, or of what should hold it; a flag has none."""
    path = problem.path
    if path and any(_is_beneath(path, one) or _is_beneath(one, path) for one in is_set):
        return _from_flag(problem)
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return Problem(problem.path, problem.message, line=lines.get(path), hint=problem.hint)


def _is_beneath(path: str, other: str) -> bool:
    """Whether a dotted path is another one, or leads further from there."""
    return f"{path}.".startswith(f"{other}.")


def _from_flag(problem: Problem) -> Problem:
    """Say that a value came from a flag and stands in no file."""
    return Problem(problem.path, f"{problem.message}, from --set", hint=problem.hint)


def _read_yaml(text: str, *, source: str) -> _Document:
    """Read YAML as plain values with their lines."""
    yaml = YAML(typ="safe", pure=True)
    document = _Document()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anchors given twice: anchors are refused anyway
            node = yaml.compose(text)
        if node is not None:
            reader = _Reader(yaml, document)
            document.values = reader.read(node, place="")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {_sentence(error)}"
        raise RecipeError(
            [Problem("", message, line=mark and mark.line + 1)], source=source
        ) from error
    except YAMLError as error:
        message = f"is not valid YAML: {str(error).splitlines()[0]}"
        raise RecipeError([Problem("", message)], source=source) from error
    except RecursionError as error:
        raise RecipeError([Problem("", "is nested too deeply")], source=source) from error
    return document


def _sentence(error: MarkedYAMLError) -> str:
    """Give what a YAML error says in one sentence."""
    text = str(error.problem or error.context)
    if "'\\t'" in text:
        return "there is a tab where spaces are wanted"
    if "another document" in text:
        return "there is more than one document"
    return text.replace("<", "").replace(">", "")


class _Representer(RoundTripRepresenter):
    """Writes nothing as `null`, where ruamel would leave an empty place."""

    def write_null(self, value: None) -> Node:
        """Give the node of nothing."""
        return self.represent_scalar(f"{_TAG}null", "null")


_Representer.add_representer(type(None), _Representer.write_null)


class _Reader:
    """Makes plain values of a tree of nodes; notes lines, and what a recipe may not hold."""

    def __init__(self, yaml: YAML, document: _Document) -> None:
        self._constructor = yaml.constructor
        self._document = document
        self._seen: set[int] = set()

    def read(self, node: Node, *, place: str) -> Any:
        """Give the value of a node and of all within it."""
        line = self._document.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._seen:
            return self._refuse(place, line, "an alias (*) is not part of a recipe; write it out")
        self._seen.add(id(node))
        kind = str(node.tag).removeprefix(_TAG)
        if isinstance(node, MappingNode) and kind == "map":
            return self._read_mapping(node, place)
        if isinstance(node, SequenceNode) and kind == "seq":
            prefix = f"{place}." if place else ""
            return [self.read(item, place=f"{prefix}{i}") for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and kind in _TEXTS:
            return node.value
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            return self._read_scalar(node, place, line)
        tag = kind if kind.startswith("!") else f"!!{kind}"
        return self._refuse(
            place, line, f"the tag {tag} is not part of a recipe; only plain values are"
        )

    def _read_mapping(self, node: MappingNode, place: str) -> dict[str, Any]:
        """Give the mapping of a node; a key is a word, given once."""
        values: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._refuse(place, line, "a name must be a word, not a list or a mapping")
                continue
            name = str(key.value)
            inner = f"{place}.{name}" if place else name
            if name in values:
                first = self._document.lines[inner]
                self._refuse(inner, line, f"is given twice, first in line {first}")
                continue
            self._document.lines[inner] = line
            values[name] = self.read(item, place=inner)
        return values

    def _read_scalar(self, node: ScalarNode, place: str, line: int) -> Any:
        """Give a number, a truth value or nothing."""
        try:
            return self._constructor.construct_object(node)
        except (LookupError, ValueError, YAMLError):
            return self._refuse(place, line, f"{node.value[:40]!r} cannot be read as a value")

    def _refuse(self, place: str, line: int, message: str) -> None:
        """Note a problem; the value is taken as nothing."""
        self._document.problems.append(Problem(place, message, line=line))


def _to_tree(values: Mapping[str, Any], *, place: str, reasons: Mapping[str, str]) -> CommentedMap:
    """Lay values out for a reader: sections and stages in blocks, what is within them on a line."""
    tree = CommentedMap()
    for name, value in values.items():
        path = f"{place}.{name}" if place else name
        tree[name] = _lay_out(value, place=path, reasons=reasons)
        if path in reasons:
            tree.yaml_add_eol_comment(" ".join(reasons[path].split()), key=name, column=0)
    return tree


def _lay_out(value: Any, *, place: str, reasons: Mapping[str, str]) -> Any:
    """Lay one value out."""
    is_section = "." not in place
    if isinstance(value, dict) and is_section:
        return _to_tree(value, place=place, reasons=reasons)
    if isinstance(value, list) and is_section:
        return CommentedSeq(
            _to_tree(item, place=f"{place}.{index}", reasons=reasons)
            for index, item in enumerate(value)
        )
    if isinstance(value, dict):
        flow = CommentedMap(
            (name, _lay_out(one, place=place, reasons={})) for name, one in value.items()
        )
        flow.fa.set_flow_style()
        return flow
    if isinstance(value, list):
        row = CommentedSeq(_lay_out(one, place=place, reasons={}) for one in value)
        if not any(isinstance(one, dict) for one in value):
            row.fa.set_flow_style()
        return row
    if isinstance(value, str) and not value.isprintable():
        return DoubleQuotedScalarString(value)  # escapes what a plain text would fold or lose
    return value
