"""Where data comes from: tracer sockets, recordings, /proc, Docker. A source turns the outside into plain values, or into a clear error."""
