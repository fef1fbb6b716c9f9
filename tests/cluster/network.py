"""Network namespaces joined by a bridge: the first one holds it, each of the others has a cable of its own that can be pulled."""

from __future__ import annotations

from contextlib import ExitStack

from tests.tracer.spaces import Space, run, spaces

BRIDGE = "bridge"
CABLE = "eth0"


class Network:
    """Addresses 10.77.0.1 (the first), 10.77.0.2 and so on, that exist in these namespaces alone. Use as a context."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = ExitStack()
        self.spaces: list[Space] = []

    def __enter__(self) -> Network:
        self.spaces = self._stack.enter_context(spaces(self._count))
        first, *others = self.spaces
        run("ip", "-n", first.name, "link", "add", BRIDGE, "type", "bridge")
        self._give(first, BRIDGE, 1)
        for number, space in enumerate(others, 2):
            run("ip", "-n", first.name, "link", "add", f"port{number}", "type", "veth", "peer", "name", CABLE, "netns", space.name)
            run("ip", "-n", first.name, "link", "set", f"port{number}", "master", BRIDGE, "up")
            self._give(space, CABLE, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @staticmethod
    def address(number: int) -> str:
        """Of the namespace with this number; the first is 1."""
        return f"10.77.0.{number}"

    def pull(self, number: int) -> None:
        """Cut a namespace off: nothing comes or goes, and nobody is told."""
        run("ip", "-n", self.spaces[0].name, "link", "set", f"port{number}", "down")

    def plug(self, number: int) -> None:
        """Put the cable in again."""
        run("ip", "-n", self.spaces[0].name, "link", "set", f"port{number}", "up")

    def _give(self, space: Space, device: str, number: int) -> None:
        run("ip", "-n", space.name, "address", "add", f"{self.address(number)}/24", "dev", device)
        run("ip", "-n", space.name, "link", "set", device, "up")
