"""The `rayscope` command. It starts the actors, so it stands above them; each subcommand is one module."""
