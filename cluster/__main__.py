"""`python -m cluster` is the `rayscope` command."""

from cluster.cli.start import run

if __name__ == "__main__":
    run()
