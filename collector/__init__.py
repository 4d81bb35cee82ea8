"""podtally: per-pod CPU and memory of a Kubernetes node, read from cgroup v2 and named by the kubelet."""

__version__ = "0.1.0"
