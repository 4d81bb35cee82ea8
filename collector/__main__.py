"""``python -m collector`` is the program ``podtally``, and so is its entry point.

Imports take most of the first second. Whoever interrupts them is not to read where they were.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the program; its exit status, which is 130 where it is interrupted before it has begun."""
    # One that is ignored, as of a job in a shell's background, stays so.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _run()
    # Nothing is there yet that would have to be tidied up, and a KeyboardInterrupt could be caught by what is imported.
    signal.signal(signal.SIGINT, _end)
    from collector import cli

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main()
    except KeyboardInterrupt:
        return 130
    finally:
        # What is written is flushed by now, and Python would show where in its own ending it was.
        signal.signal(signal.SIGINT, _end)


def _run() -> int:
    from collector import cli

    return cli.main()


def _end(_number: int, _frame: object) -> None:
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
