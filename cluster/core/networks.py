"""Names of networks outside the cluster, by the longest prefix that holds an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


class Networks:
    """Named networks; of several that hold an address the smallest names it."""

    def __init__(self, named: Mapping[str, Sequence[str]]) -> None:
        pairs = [(ip_network(cidr, strict=False), name) for name, cidrs in named.items() for cidr in cidrs]
        self._by_prefix: dict[tuple[int, int], dict[int, str]] = {}
        for network, name in pairs:
            key = (network.version, network.prefixlen)
            self._by_prefix.setdefault(key, {})[int(network.network_address) >> _host_bits(network)] = name
        self._prefixes = {version: sorted((p for v, p in self._by_prefix if v == version), reverse=True) for version in (4, 6)}

    def name_of(self, address: str) -> str | None:
        """The name of the smallest network that holds the address, None where none does."""
        parsed = ip_address(address)
        bits = parsed.max_prefixlen
        for prefix in self._prefixes[parsed.version]:
            name = self._by_prefix[parsed.version, prefix].get(int(parsed) >> (bits - prefix))
            if name is not None:
                return name
        return None


def _host_bits(network: Network) -> int:
    return network.max_prefixlen - network.prefixlen
