"""The map: who talks to whom at a level, as plain maps and lists for the API, the page and the command.

A map is `{level, nodes, edges, folded, completeness}`. A node: id, kind, namespace, name, sent, received, connections, open, retransmits.
An edge: client, server, service, protocol, port, sent and received (bytes as the client sends and receives them), connections, open,
retransmits, client_view and server_view (TOTALS, or None where that end was not seen), seen_by, proof, disagreement, first_seen, last_seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.core.completeness import status
from cluster.core.edges import TOTALS
from cluster.core.errors import QueryError
from cluster.core.filters import protocol_name
from cluster.core.flows import Flow, View, fold_smallest, lift, of_edges, of_rows
from cluster.core.records import Proof
from cluster.core.snapshot import Snapshot

LEVELS = ("namespace", "workload", "pod", "node", "external")
OUTSIDE, HOST, UNKNOWN = "external", "host", "unknown"
NOBODY = ("unattributed", "ambiguous", "moved", "unresolved")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of the map is wanted; each field that is not None must hold."""

    level: str = "workload"
    namespace: str | None = None  # flows with an end in it
    workload: str | None = None  # flows with an end of exactly this id
    search: str | None = None  # flows with an end, or a Service, whose id contains this
    since: float | None = None  # s since 1970: flows seen at or after it
    budget: int | None = None  # ends at most; the smallest others are folded into one


def service_map(snapshot: Snapshot, choice: Choice, now: float) -> dict[str, Any]:
    """The map at a level. Raises QueryError for a level that there is not."""
    if choice.level not in LEVELS:
        raise QueryError(f"level {choice.level!r}: choose one of {', '.join(LEVELS)}")
    flows = [flow for flow in _at_level(snapshot, choice.level) if _chosen(flow, choice)]
    flows, folded = fold_smallest(flows, choice.budget) if choice.budget else (flows, 0)
    flows.sort(key=lambda flow: (-flow.bytes, flow.client, flow.server, flow.service, flow.port))
    return {
        "level": choice.level,
        "at": now,
        "nodes": _nodes(flows),
        "edges": [edge(flow) for flow in flows],
        "folded": folded,
        "completeness": completeness(snapshot, now),
    }


def _at_level(snapshot: Snapshot, level: str) -> list[Flow]:
    match level:
        case "namespace":
            return lift(of_edges(snapshot), namespace_id, ports=False)
        case "pod":
            return of_rows(snapshot, lambda text, _: text or UNKNOWN)
        case "node":
            return lift(of_rows(snapshot, _node_id), str, ports=False)
        case "external":
            return [flow for flow in of_edges(snapshot) if OUTSIDE in (kind_of(flow.client), kind_of(flow.server))]
        case _:
            return of_edges(snapshot)


def _node_id(text: str, node: str) -> str:
    return f"node/{node}" if node else text if text.startswith("node/") else namespace_id(text)


def kind_of(text: str) -> str:
    """The kind of an end: what stands before the first "/"."""
    return text.partition("/")[0]


def namespace_of(text: str) -> str:
    """The Kubernetes namespace of an end, "" where it has none."""
    kind, _, rest = text.partition("/")
    if kind == "namespace":
        return rest
    return rest.partition("/")[0] if rest.count("/") == 1 and kind != OUTSIDE else ""


def namespace_id(text: str) -> str:
    """What an end is part of: namespace/NAME, external, host (nodes and what runs on them outside pods), or unknown."""
    kind = kind_of(text)
    if kind == OUTSIDE:
        return OUTSIDE
    if not text or kind in NOBODY:
        return UNKNOWN
    namespace = namespace_of(text)
    return f"namespace/{namespace}" if namespace else HOST


def _chosen(flow: Flow, choice: Choice) -> bool:
    ends = (flow.client, flow.server)
    return (
        (choice.namespace is None or choice.namespace in map(namespace_of, ends))
        and (choice.workload is None or choice.workload in ends)
        and (choice.search is None or any(choice.search in text for text in (*ends, flow.service)))
        and (choice.since is None or flow.last_seen >= choice.since)
    )


# As plain maps


def edge(flow: Flow) -> dict[str, Any]:
    """An edge of the map."""
    client, server = (dict(zip(TOTALS, view, strict=True)) if any(view) else None for view in flow.views)
    sent, received = best(client, server)
    views = [view for view in (client, server) if view]
    return {
        "client": flow.client,
        "server": flow.server,
        "service": flow.service,
        "protocol": protocol_name(flow.protocol) if flow.port else "",
        "port": flow.port,
        "sent": sent,
        "received": received,
        "connections": max((view["opened"] for view in views), default=0),
        "open": max((view["open"] for view in views), default=0),
        "retransmits": sum(view["retransmits"] for view in views),
        "client_view": client,
        "server_view": server,
        "seen_by": "both" if client and server else "client" if client else "server",
        "proof": {"client": proof_names(flow.proof[0]), "server": proof_names(flow.proof[1])},
        "disagreement": disagreement(*flow.views),
        "first_seen": flow.first_seen,
        "last_seen": flow.last_seen,
    }


def best(client: dict[str, int] | None, server: dict[str, int] | None) -> tuple[int, int]:
    """Bytes from client to server and back: each direction as the end that sees more of it has it."""
    pairs = [(view["sent"], view["recv"]) for view in (client,) if view] + [(view["recv"], view["sent"]) for view in (server,) if view]
    return max((sent for sent, _ in pairs), default=0), max((received for _, received in pairs), default=0)


def disagreement(client: View, server: View) -> float | None:
    """The share of the bytes that only one end saw, 0 to 1; None where only one end was seen."""
    if not any(client) or not any(server):
        return None
    apart = abs(client[0] - server[1]) + abs(client[1] - server[0])
    return apart / (max(client[0], server[1]) + max(client[1], server[0]) or 1)


def proof_names(proof: int) -> list[str]:
    """The words of Proof bits."""
    return [one.name.lower() for one in Proof if proof & one and one.name]


def _nodes(flows: list[Flow]) -> list[dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    for flow in flows:
        drawn = edge(flow)
        for end, sent, received in ((flow.client, "sent", "received"), (flow.server, "received", "sent")):
            node = nodes.setdefault(end, _node(end))
            for name, value in (("sent", drawn[sent]), ("received", drawn[received])):
                node[name] += value
            for name in ("connections", "open", "retransmits"):
                node[name] += drawn[name]
    return sorted(nodes.values(), key=lambda node: str(node["id"]))


def _node(end: str) -> dict[str, Any]:
    name = end.rsplit("/", 1)[-1] if kind_of(end) != OUTSIDE else end.partition("/")[2] or end
    counts = dict.fromkeys(("sent", "received", "connections", "open", "retransmits"), 0)
    return {"id": end, "kind": kind_of(end), "namespace": namespace_of(end), "name": name, **counts}


STATED = ("nodes_covered", "missed", "refused", "folded", "unattributed", "ambiguous", "uncovered", "oldest_age", "rows")


def completeness(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """What the map rests on, in short; `status` has it all."""
    found = status(snapshot, now)
    return {"nodes": len(found["nodes"]), **{name: found[name] for name in STATED}}
