"""A Griffe extension for the habits of this package's docstrings.

`level, step: counted from 0` describes two names at once, and an attribute that stands in its
class's list needs no entry of its own.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)$", re.MULTILINE)


class Habits(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _SEVERAL.sub(_one_by_one, obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        for member in cls.members.values():
            if member.is_attribute and not member.is_alias and not member.docstring:
                member.public = False


def _one_by_one(found: re.Match[str]) -> str:
    return "\n".join(f"{found[1]}{name}{found[3]}" for name in found[2].split(", "))
