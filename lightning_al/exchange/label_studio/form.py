"""FORM: what a project asks of an annotator: one of the classes, a number, or text.

class names -> [Form.as_xml] -> a new project;  an existing project -> [Form.read] -> names to answer by
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

__all__ = ["KINDS", "Form"]

#: Our kind of answer -> the tag that asks for it; the same word in lower case is the type of a result.
KINDS = {"choices": "Choices", "number": "Number", "text": "TextArea"}


@dataclass(frozen=True)
class Form:
    """The labelling configuration of a project, as far as it concerns us.

    Args:
        kind: `"choices"`, `"number"` or `"text"`.
        medium: What is looked at: `"image"` or `"text"`.
        labels: The classes.
        field: Where in a task's data that is; default: `medium`.
        from_name: Name of the tag that asks.
        to_name: Name of the tag that shows.

    Example:
        >>> print(Form("choices", "image", ("cat", "dog")).as_xml())
        <View>
          <Image name="image" value="$image" />
          <Choices name="label" toName="image" choice="single-radio" showInline="true">
            <Choice value="cat" />
            <Choice value="dog" />
          </Choices>
        </View>
    """

    kind: str
    medium: str = "text"
    labels: tuple[str, ...] = ()
    field: str = ""
    from_name: str = "label"
    to_name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.medium not in ("image", "text"):
            raise ValueError(
                f"An annotator was to be asked for {self.kind!r} on {self.medium!r}; needed are 'choices', "
                "'number' or 'text' on 'image' or 'text'. Choose one of these."
            )
        wrong = [label for label in self.labels if not label.strip() or label.startswith("$")]
        if (self.kind == "choices") != bool(self.labels) or wrong or len({*self.labels}) < len(self.labels):
            raise ValueError(
                f"The classes to choose from are {list(self.labels)[:10]}; needed are distinct names, none "
                "empty or beginning with $, for 'choices' and for nothing else. Mend `class_names`."
            )
        object.__setattr__(self, "field", self.field or self.medium)
        object.__setattr__(self, "to_name", self.to_name or self.medium)

    def as_xml(self) -> str:
        """The labelling configuration for a new project."""
        view = ElementTree.Element("View")
        shows = "Image" if self.medium == "image" else "Text"
        ElementTree.SubElement(view, shows, name=self.to_name, value=f"${self.field}")
        asks = ElementTree.SubElement(view, KINDS[self.kind], name=self.from_name, toName=self.to_name)
        if self.kind == "choices":
            asks.attrib |= {"choice": "single-radio", "showInline": "true"}
        elif self.kind == "text":
            asks.attrib |= {"maxSubmissions": "1", "editable": "true"}
        for label in self.labels:
            ElementTree.SubElement(asks, "Choice", value=label)
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode")

    def result(self, value: Any) -> list[dict[str, Any]]:
        """An answer as Label Studio keeps it, for a prediction."""
        tag = KINDS[self.kind].lower()
        inner = {"choices": {"choices": [value]}, "number": {"number": value}, "text": {"text": [value]}}
        return [
            {"from_name": self.from_name, "to_name": self.to_name, "type": tag, "value": inner[self.kind]}
        ]

    @classmethod
    def read(cls, project: Mapping[str, Any], from_name: str | None = None) -> Form:
        """What an existing project asks.

        Args:
            project: The server's description of it, of which `parsed_label_config` counts.
            from_name: Which of several questions is ours.

        Raises:
            ValueError: If none is, or several may be.
        """
        parsed = project.get("parsed_label_config") or {}
        kinds = {tag: kind for kind, tag in KINDS.items()}
        found = {name: tag for name, tag in parsed.items() if tag.get("type") in kinds and tag.get("inputs")}
        if from_name is not None:
            found = {name: tag for name, tag in found.items() if name == from_name}
        if len(found) != 1:
            asked = "" if from_name is None else f" named {from_name!r}"
            raise ValueError(
                f"Project {project.get('id')} ({project.get('title')!r}) asks {len(found)} questions{asked} "
                f"of the kinds {', '.join(KINDS.values())}: {sorted(found) or sorted(parsed)}; needed is "
                "one. Name it with `control=`, or let a project be made with `create_project`."
            )
        (name, tag), = found.items()  # fmt: skip
        shown = tag["inputs"][0]
        return cls(
            kinds[tag["type"]],
            "image" if shown.get("type") == "Image" else "text",
            tuple(tag.get("labels") or ()) if tag["type"] == "Choices" else (),
            field=str(shown.get("value") or ""),
            from_name=name,
            to_name=tag["to_name"][0],
        )

    def check(self, class_names: Sequence[str] | None) -> None:
        """Whether it asks for what the ledger takes.

        Args:
            class_names: The ledger's; `None`: labels are no classes, or they have no names.

        Raises:
            ValueError: If annotators would choose from other classes.
        """
        if class_names is None:
            return
        if self.kind != "choices":
            raise ValueError(
                f"The project asks for a {self.kind} ({self.from_name!r}); needed is a choice of the classes "
                f"{list(class_names)[:10]}. Name another question with `control=`, or make a project."
            )
        names = [str(name) for name in class_names]
        missing = [name for name in names if name not in self.labels]
        other = [label for label in self.labels if label not in names]
        if missing or other:
            raise ValueError(
                f"The project lets annotators choose from {list(self.labels)[:20]}; needed are the "
                f"`class_names`: {missing[:10]} are missing there, {other[:10]} are no classes. Mend the "
                "project's labelling configuration, or `class_names`."
            )

    def value(self, result: Any) -> str | float:
        """The answer in an annotation's result.

        Raises:
            ValueError: If it is none, or more than one; the message says what is there.

        Example:
            >>> form = Form("choices", labels=("bad", "good"))
            >>> form.value(form.result("good"))
            'good'
        """
        if not isinstance(result, list) or not result:
            raise ValueError("submitted without an answer")
        parts = [part for part in result if isinstance(part, dict)]
        mine = [part.get("value") for part in parts if part.get("from_name") == self.from_name]
        if not mine:
            names = sorted({str(part.get("from_name")) for part in parts})
            raise ValueError(f"answers {names}, and not {self.from_name!r}, which the project asks for")
        given = [value for part in mine for value in self._values(part)]
        if len(given) != 1:
            raise ValueError(f"{len(given)} answers where one is needed: {given[:5]}")
        return self._checked(given[0])

    def _values(self, part: Any) -> list[Any]:
        word = {"choices": "choices", "number": "number", "text": "text"}[self.kind]
        inner = part.get(word) if isinstance(part, dict) else None
        if inner is None:
            return []
        return list(inner) if isinstance(inner, list) else [inner]

    def _checked(self, value: Any) -> str | float:
        if self.kind == "number":
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
                raise ValueError(f"{value!r} is no number")
            return value
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{value!r} is no text")
        return value
