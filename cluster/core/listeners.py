"""Listening sockets, to look up which rows' local or remote port is served, and by whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.addresses import Addresses
from cluster.core.records import V4_PREFIX

Columns = dict[str, NDArray[Any]]
ANY = (bytes(16), V4_PREFIX + bytes(4))  # "::" and "0.0.0.0"


def _service(net_ns: NDArray[Any], protocol: NDArray[Any], port: NDArray[Any]) -> NDArray[np.uint64]:
    wide: NDArray[np.uint64] = np.left_shift(net_ns, 17, dtype=np.uint64)
    wide |= np.left_shift(protocol, 16, dtype=np.uint64)
    wide |= port
    return wide


class Listeners:
    """The listeners of one reply. A wildcard one (`::`, `0.0.0.0`) serves its port on every address of its namespace."""

    def __init__(self, columns: Columns, addresses: Addresses) -> None:
        wildcard = np.isin(columns["source"], [addresses.number_of(packed) for packed in ANY])
        self._services, index = np.unique(_service(columns["net_ns"], columns["protocol"], columns["sport"]), return_inverse=True)
        self._exact, first = np.unique(self._key(index, columns["source"]), return_index=True)
        self._exact_pid = columns["pid"][first]
        self._wild_pid = np.zeros(len(self._services), np.uint32)
        self._wild = np.zeros(len(self._services), np.bool_)
        self._wild_pid[index[wildcard]] = columns["pid"][wildcard]
        self._wild[index[wildcard]] = True

    @staticmethod
    def _key(service: NDArray[Any], address: NDArray[Any]) -> NDArray[np.uint64]:
        return service.astype(np.uint64) << np.uint64(32) | address.astype(np.uint64)

    def find(
        self, net_ns: NDArray[Any], protocol: NDArray[Any], address: NDArray[Any], port: NDArray[Any]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint32]]:
        """For each (namespace, protocol, address, port): whether a listener has exactly it, whether a wildcard one covers it if the
        address is the namespace's own, and the listener's pid (0: not known)."""
        exact = np.zeros(len(port), np.bool_)
        if not len(self._services):
            return exact, exact, np.zeros(len(port), np.uint32)
        wanted = _service(net_ns, protocol, port)
        index = np.minimum(np.searchsorted(self._services, wanted), len(self._services) - 1)
        served = self._services[index] == wanted
        key = self._key(index, address)
        place = np.minimum(np.searchsorted(self._exact, key), len(self._exact) - 1)
        exact = served & (self._exact[place] == key)
        wild = served & self._wild[index]
        pid = np.where(exact, self._exact_pid[place], np.where(wild, self._wild_pid[index], np.uint32(0)))
        return exact, wild, pid
