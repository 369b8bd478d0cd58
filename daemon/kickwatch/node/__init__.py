"""What this node is and lets us do: kernel, CPUs, cgroups, capabilities."""
