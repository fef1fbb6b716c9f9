"""Where state is kept. Every store passes the same contract suite, tests/contracts/test_store.py."""
