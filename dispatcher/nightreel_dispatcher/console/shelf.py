"""What the console remembers of its store between two requests."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from ..desk import Desk
from ..fleet import Fleet
from ..opening import fleet_to_see
from ..waker import Waker
from .catalogue import Catalogue
from .census import Census
from .runbook import Runbook
from .thumbs import Thumbs


class Shelf:
    """Each part is made when it is first needed, so that a console starts while its store cannot be reached.

    Two threads that are first at the same moment may make one twice: the later one counts, and nothing is lost. Each
    property raises StoreUnavailable.
    """

    def __init__(self, desk: Desk, waker: Waker | None = None) -> None:
        self.desk, self.waker = desk, waker

    @cached_property
    def fleet(self) -> Fleet:
        """Raises SourceUnavailable, BadBackends."""
        return fleet_to_see(self.desk, self.waker)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.desk.store)

    @cached_property
    def census(self) -> Census:
        return Census(self.desk.store)

    @cached_property
    def runbook(self) -> Runbook:
        return Runbook(self.desk.store)

    @cached_property
    def thumbs(self) -> Thumbs:
        return Thumbs(self.desk.store)

    def close(self) -> None:
        if "census" in vars(self):
            self.census.close()


def shelf_of(request: Request) -> Shelf:
    shelf: Shelf = request.app.state.shelf
    return shelf


ShelfOf = Annotated[Shelf, Depends(shelf_of)]
