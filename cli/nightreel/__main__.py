"""The `nightreel` command, and `python -m nightreel`."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command. What it imports stays for good: looking through that for garbage would cost an eighth of the start."""
    gc.disable()
    from .main import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
