"""What all tests begin with.

Hypothesis makes the same examples in every run, however long a busy machine takes to make and try them. Programs that
tests start end by signals, also where the tests run under nohup or in the background of a shell, which ignore some.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
