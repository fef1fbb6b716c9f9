"""The Ray actors: each an ordinary class over the pure core. Only options.py knows Ray's options and names."""
