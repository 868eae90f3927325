"""`python -m crowline`."""

from crowline.cli import main

main()
