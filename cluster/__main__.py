"""`python -m cluster` is the `rayscope` command."""

from cluster.cli.main import main

if __name__ == "__main__":
    main(prog_name="rayscope")
