"""``python -m geomatch`` is the program ``geomatch``."""

from geomatch.cli import main

if __name__ == "__main__":
    main()
