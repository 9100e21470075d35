"""`python -m loci` is `loci`."""

from loci.app.cli import main

if __name__ == "__main__":
    main()
