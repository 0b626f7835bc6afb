"""What every model on the wire is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

UINT32_MAX = 2**32 - 1
INCOMPLETE = "nightreel_incomplete"  # type of the errors that `incomplete` makes
PROMPT_CHARS = 8000

Seed = Annotated[int, Field(ge=0, le=UINT32_MAX)]

Address = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^(gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\x00-\x1f\x7f]+|https?://[^\x00-\x20\x7f]+"
        r"|input:sha256:[0-9a-f]{64}\.[a-z0-9]{2,4})$",  # the last: what `enqueue` copied into the store, by content
    ),
]


class Strict(BaseModel):
    """Base of every model on the wire: frozen, no coercion, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def problem(message: str, *at: str | int) -> PydanticCustomError:
    """An error about the field `at` (a path below the model that raises it), in the words of a user."""
    return PydanticCustomError("nightreel", "{message}", {"message": message, "at": at})


def incomplete(message: str, *at: str | int) -> PydanticCustomError:
    """A problem that more fields would mend: no mistake yet in a manifest's defaults."""
    return PydanticCustomError(INCOMPLETE, "{message}", {"message": message, "at": at})
