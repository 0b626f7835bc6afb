"""hold, resume: nobody claims anything until it is lifted."""

from __future__ import annotations

from typing import Annotated

import typer

from nightreel_storage.connect import open_store
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import utc_now

from .common import StoreFlag, errors_in_one_line, settings_with


def hold(
    reason: Annotated[str, typer.Argument(help="Why; workers and status tell it.", show_default=False)],
    store: StoreFlag = None,
) -> None:
    """Stop claiming, for all workers of a store; what they have begun they finish."""
    settings = settings_with(store=store)
    with errors_in_one_line():
        Holds(open_store(settings.store)).put(reason, utc_now())
    print(f"{settings.store} is on hold: {reason}")


def resume(store: StoreFlag = None) -> None:
    """Lift a hold: work goes on."""
    settings = settings_with(store=store)
    with errors_in_one_line():
        holds = Holds(open_store(settings.store))
        held = holds.read()
        if held:
            holds.lift(utc_now())
    print(f"{settings.store} is not on hold any more" if held else f"{settings.store} was not on hold")
