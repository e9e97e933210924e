"""The Create form as data: groups of fields, each with a way to a job's settings and back.

The enhancer and the LoRA picker add groups of their own; nothing else here knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradio.components import Component

from app.spec import JobSpec


@dataclass(frozen=True)
class FormPart:
    """A group of fields.

    Attributes:
        name: under which its values are remembered.
        components: what the page shows, in a fixed order.
        fields: their values -> fields of `JobSpec`.
        values: a spec -> their values, None for a component that stays as it is.
        defaults: their values on a fresh form.
    """

    name: str
    components: Sequence[Component]
    fields: Callable[[Sequence[Any]], dict[str, Any]]
    values: Callable[[JobSpec], list[Any]]
    defaults: Callable[[], list[Any]]


@dataclass(frozen=True)
class Form:
    """All groups, in the order of the page."""

    parts: tuple[FormPart, ...]

    @property
    def components(self) -> list[Component]:
        return [component for part in self.parts for component in part.components]

    def split(self, values: Sequence[Any]) -> dict[str, Sequence[Any]]:
        """The values of `components`, by group."""
        found, start = {}, 0
        for part in self.parts:
            found[part.name] = values[start : start + len(part.components)]
            start += len(part.components)
        return found

    def spec(self, values: Sequence[Any]) -> JobSpec:
        """The job that the form asks for.

        Raises:
            RequestError: a field cannot be read, for instance a seed that is no number.
        """
        given = self.split(values)
        fields: dict[str, Any] = {"prompt": ""}
        for part in self.parts:
            fields |= part.fields(given[part.name])
        return JobSpec(**fields)

    def from_spec(self, spec: JobSpec) -> list[Any]:
        """Values of `components` for a spec; None where it says nothing."""
        return [value for part in self.parts for value in part.values(spec)]

    def defaults(self) -> list[Any]:
        """Values of `components` on a fresh form."""
        return [value for part in self.parts for value in part.defaults()]

    def remembered(self, kept: dict[str, Any]) -> list[Any]:
        """Values of `components` from what was kept; a group that changed since starts fresh."""
        values: list[Any] = []
        for part in self.parts:
            old = kept.get(part.name)
            fits = isinstance(old, list) and len(old) == len(part.components)
            values += old if isinstance(old, list) and fits else part.defaults()
        return values
