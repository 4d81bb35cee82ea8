"""The kernel's side: names of cgroups, grammars of their files, and the walk over a node's pods."""
