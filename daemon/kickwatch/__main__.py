"""`python -m kickwatch`."""

from kickwatch.cli import main

main()
