"""What kickwatch does to the node: real containers, bare memory cgroups, and their removal."""
