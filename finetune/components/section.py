"""What every section of a recipe is: a frozen pydantic model that refuses unknown names."""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Section", "kind_from_name"]


class Section(BaseModel):
    """A frozen part of a recipe; unknown names are errors, defaults are checked as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def kind_from_name(value: Any) -> Any:
    """Read the short form of a component: `linear` stands for `{kind: linear}`."""
    return {"kind": value} if isinstance(value, str) else value
