"""`python -m llem`, where the program itself is not on the path."""

from llem.cli import main

if __name__ == "__main__":
    main()
