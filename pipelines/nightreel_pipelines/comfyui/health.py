"""Is there a ComfyUI server that draws? For who decides whether workers are worth starting."""

from __future__ import annotations

from .api import Api
from .errors import ServerError
from .settings import ComfyuiSettings


def trouble(settings: ComfyuiSettings) -> str:
    """What is wrong with all of its servers, in words; empty when one of them answers /system_stats."""
    token = settings.token.get_secret_value() if settings.token else ""
    said = []
    for address in settings.addresses:
        try:
            Api(address, token).stats()
        except ServerError as exc:
            said.append(str(exc))
        else:
            return ""
    return "; ".join(said)
