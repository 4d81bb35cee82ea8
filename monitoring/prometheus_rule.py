"""The rule files as one PrometheusRule, for clusters with the prometheus-operator; `make docs` writes it."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

RULES = Path(__file__).resolve().parent / "prometheus" / "rules"
WRITTEN = Path(__file__).resolve().parent / "overlays" / "prometheus-operator" / "prometheusrule.yaml"

_HEAD = """\
# Generated from ../../prometheus/rules; `make docs` writes it anew, and a test holds it to them.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: podtally
  namespace: podtally
  labels:
    app.kubernetes.io/name: podtally
    app.kubernetes.io/component: exporter
spec:
  groups:
"""


def text() -> str:
    """The object, with the files' own lines below ``spec``, comments included."""
    groups = (path.read_text(encoding="utf-8").partition("groups:\n")[2] for path in sorted(RULES.glob("*.yml")))
    return _HEAD + indent("\n".join(groups), "  ")
