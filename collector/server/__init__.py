"""HTTP: expositions, the JSON, the page and the probes. Serves what the loop published last; reads no cgroup."""
