"""``python -m fewfit``."""

from fewfit.cli import main

if __name__ == "__main__":
    main()
