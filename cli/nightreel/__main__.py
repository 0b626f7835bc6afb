"""The `nightreel` command, and `python -m nightreel`."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command. What it imports stays for good: it is not looked through for garbage."""
    gc.disable()
    from .main import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
