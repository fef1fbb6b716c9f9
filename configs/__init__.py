"""Settings and manifests. Only this package reads the environment."""
