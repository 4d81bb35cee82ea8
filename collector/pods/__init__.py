"""Names for cgroups: the kubelet's list of pods, the API server's where the kubelet does not answer."""
