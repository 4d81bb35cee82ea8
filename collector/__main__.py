"""``python -m collector`` is the program ``podtally``, and so is its entry point.

Imports take most of the first second. Whoever ends them is not to read where they were; and a container's first
process, which Linux gives no signals but those that it handles, would outlive a SIGTERM until it is killed.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the program; its exit status, which is 130 or 143 where SIGINT or SIGTERM ends it before it has begun."""
    # One that is ignored, as SIGINT of a job in a shell's background, stays so.
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:
        # Not by a KeyboardInterrupt, which what is imported could catch. Nothing is there yet that has to be tidied up.
        signal.signal(signal.SIGINT, _end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # Until a command has a handler of its own.
        signal.signal(signal.SIGTERM, _end)
    from collector import cli

    try:
        if interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main()
    except KeyboardInterrupt:
        return 130
    finally:
        if interrupts:
            # What is written is flushed by now, and Python would show where in its own ending it was.
            signal.signal(signal.SIGINT, _end)


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
