"""From trial records to a verdict: pure, no clock, no I/O."""
