"""What every section of a recipe is: a frozen pydantic model that refuses unknown names.

A mistake is a RecipeError wherever a section is made: in a file, on the command line, in Python.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator

from finetune.components.problems import find_problems
from finetune.errors import RecipeError

__all__ = ["Number", "Section", "WholeNumber"]

# Neither takes true for 1 or "3" for 3: in a recipe each of them is a slip.
Number = Annotated[float, Strict()]
WholeNumber = Annotated[int, Strict()]


class Section(BaseModel):
    """A frozen part of a recipe; unknown names are errors, defaults are checked as well.

    Raises:
        RecipeError: All problems of the values at once, by dotted path within the section.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    if not TYPE_CHECKING:  # a type checker and an editor see the fields as parameters

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise RecipeError(find_problems(error, type(self), values)) from error

        # As pydantic marks its own: validation of a whole recipe need not pass by constructors.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Make a section from a mapping of any keys, as a file has it.

        Raises:
            RecipeError: All problems of the values at once, by dotted path within the section.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(find_problems(error, cls, values)) from error

    @model_validator(mode="before")
    @classmethod
    def _take_numpy_numbers(cls, values: Any) -> Any:
        """Read numbers of numpy, such as a drawn seed, as plain ones."""
        if not isinstance(values, dict):
            return values
        return {name: _plain_number(value) for name, value in values.items()}


def _plain_number(value: Any) -> Any:
    """Give the Python number that a scalar of numpy stands for; anything else as it is."""
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    return value.item() if is_scalar else value
