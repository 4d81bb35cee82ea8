"""``podtally loadtest``: runs a load test in a cluster, and joins its load with the CPU and memory of what bore it.

The middle is pure: what k6 and Prometheus said goes in as text, out come values, then text again. ``kubectl.py``,
``prometheus.py``, ``folder.py`` and ``run.py`` are its edge.
"""
