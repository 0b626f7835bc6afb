"""Which keyframes are made together. Imports torch."""

from __future__ import annotations

from collections import deque

from ..recipe import Recipe
from .mixing import prompts_of
from .text import Texts


def take(waiting: deque[Recipe], texts: Texts, most: int) -> list[Recipe]:
    """Take the first recipe from the line, and those behind it that can be made together with it.

    Only keyframes from noise alone that walk nowhere are: a feedback keyframe needs the picture before it.
    """
    group = [waiting.popleft()]
    if not _is_plain(group[0]):
        return group
    kind = _kind(group[0], texts)
    while waiting and len(group) < most and _is_plain(waiting[0]) and _kind(waiting[0], texts) == kind:
        group.append(waiting.popleft())
    return group


def _is_plain(recipe: Recipe) -> bool:
    return recipe.start is None and recipe.toward is None


def _kind(recipe: Recipe, texts: Texts) -> tuple[object, ...]:
    """Plain recipes that are equal in this can be made together; each has its own control picture, scale and steps."""
    steered_by = recipe.control.type if recipe.control else None
    length = texts[prompts_of(recipe)][0].tokens.shape
    return recipe.width, recipe.height, recipe.steps, recipe.guidance, length, steered_by
