"""Everything of rayscope that is not a Ray actor: the pure core, the sources, the stores, the tracer and the command."""
