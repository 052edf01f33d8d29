"""`python -m artclf`: the command line, for launchers that start a module."""

from artclf.cli import main

if __name__ == "__main__":  # processes that are spawned import this module, too
    main()
