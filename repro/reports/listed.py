"""YAML files that list things of one kind, read through pydantic models: an error is one line that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from vsmd import checks, files

Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(lambda text: " ".join(text.split()))]


class Listed(BaseModel):
    """What such a file lists, or holds within: no field but those that are declared, and nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


T = TypeVar("T", bound=Listed)


def rows_of(path: Path | str, name: str) -> list[Any]:
    """The rows of a YAML file that must be a list; a one-line ValueError, by the argument's `name`, if it is none."""
    import yaml

    path = Path(path)
    if not path.exists():
        raise ValueError(f"{name}={str(path)!r}: no such file")
    try:
        with files.refusing(path, "YAML"):
            rows = yaml.safe_load(files.regular(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}: must be a list of {name}")
    return rows


def read(model: type[T], row: Any, where: str, **within: type[Listed]) -> T:
    """A row as `model`. where: names the row in errors; within: models of the fields that hold more fields.

    Raises ValueError naming the row, its field and value.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be a mapping")
    try:
        return model.model_validate(row)
    except ValidationError as error:
        errors = error.errors()
    # A misspelt field is missing too: the spelling is the better news.
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    inner = within.get(str(first["loc"][0])) if first["loc"] else None

    def field(loc: tuple[int | str, ...]) -> str:
        """The field's name; where it has alternatives, pydantic adds the one that was tried."""
        return ".".join([part for part in loc if isinstance(part, str)][: 2 if inner else 1])

    name = field(first["loc"])
    if first["type"] == "extra_forbidden":
        *outer, last = name.split(".")
        model_of = inner if inner and outer else model
        checks.one_of(f"{where}: {' '.join([*outer, 'field'])}", last, model_of.model_fields)
    if first["type"] == "value_error":  # from a validator of ours, which names its field
        raise ValueError(f"{where}: {first['ctx']['error']}")
    if first["type"] == "missing":
        raise ValueError(f"{where}: {name}: must be given")
    messages = [e["msg"].replace("Input should", "must").replace("String should", "must") for e in errors]
    alternatives = [text for e, text in zip(errors, messages, strict=True) if field(e["loc"]) == name]
    raise ValueError(f"{where}: {name}={first['input']!r}: {', or '.join(alternatives)}")
