"""Runs the command as ``python -m vigie``."""

from vigie.command import main

if __name__ == "__main__":
    raise SystemExit(main())
