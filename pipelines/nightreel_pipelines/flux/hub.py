"""A model on the Hugging Face hub -> a folder, resumed where an earlier download was cut off.

HF_TOKEN opens models that ask for consent; HF_HOME says where downloads are kept; HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SourceUnavailable

ID = re.compile(r"[\w.-]+/[\w.-]+")
# The parts of a diffusers model, and no copies of it in other layouts beside them: those of FLUX.1 weigh another 24 GB.
_WANTED = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors", "*.md", "LICENSE*"]


def download(model: str) -> Path:
    """Bring `org/name` here, or find it here. Raises SourceUnavailable with the mend."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED))
    except HfHubHTTPError as exc:
        status = exc.response.status_code if exc.response is not None else 0
        mend = {401: "set HF_TOKEN", 403: "accept its terms on its page and set HF_TOKEN", 404: "look at its name"}
        raise SourceUnavailable(f"{model}: the hub answered {status}; {mend.get(status, 'try again')}") from exc
    except Exception as exc:  # its HTTP client has errors of its own, in a package whose name changes with versions
        reason = str(exc).strip().partition("\n")[0]
        raise SourceUnavailable(
            f"{model}: the download broke off ({reason}); give the same command again, it goes on where it was"
        ) from exc
