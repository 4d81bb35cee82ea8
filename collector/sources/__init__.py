"""Where bytes come from: a live node, a recording, the kubelet, the API server; and the tee that makes recordings."""
