"""Other sources than the node's cgroups: answers of the kubelet's stats API or of the metrics API, made to tallies."""
