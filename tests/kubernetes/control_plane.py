"""A real control plane on loopback: etcd and kube-apiserver with RBAC, service accounts and client certificates; controllers where asked.

What a test takes (tests/kubernetes/conftest.py):

    control_plane      ControlPlane, one for the whole session; after every test it is made to run again, whatever the test did to it
    namespace          str, a fresh namespace of this test with the service account `default`; removed afterwards with what is in it
    controllers        ControlPlane of the session, whose kube-controller-manager runs for this module: garbage collection,
                       EndpointSlices, Deployments, DaemonSets, Jobs; no pod ever runs, since there is no kubelet
    new_control_plane  Callable[..., ControlPlane]: another one, of this test alone (a full etcd, thousands of objects); takes
                       apiserver=["--flag=value"], etcd=["--quota-backend-bytes=20000000"]: further arguments, which win over ours

What it offers, where "ns/name" is a service account, made where it is absent (its namespace is not):

    .url                                    str, https://127.0.0.1:PORT; the port stays the same over restarts
    .ca_file                                Path
    .admin_kubeconfig                       Path; the user `admin` of the group system:masters, who may also impersonate
    .kubeconfig("ns/name")                  -> Path; with a real token
    .token("ns/name", 3600)                 -> str; at least 600 s; deleting the service account ends it within about ten seconds
    .service_account("ns/name")             -> Path; a directory with token, ca.crt and namespace, as a pod has it; again: a new token
    .user_kubeconfig(user, *groups)         -> Path; with a client certificate of anybody, such as system:node:NAME of system:nodes
    .client()                               -> kubernetes.client.ApiClient of the admin; closed with the control plane
    .client("ns/name")                      ... of a service account, by its token
    .client(impersonate="system:serviceaccount:ns:name")    ... of whom the admin impersonates; service accounts get their groups
    .kubectl(*words, input="", impersonate="", check=True)  -> subprocess.CompletedProcess[str]; by the admin
    .request(method, path, body=None)       -> (status, decoded JSON); by the admin, without the client library
    .certificates                           Authority: server(name, "IP:127.0.0.1"), client(user, *groups) -> (certificate, key), Paths
    .stop_apiserver(kill_after=10.0) .start_apiserver() .restart_apiserver(kill_after=10.0)
                                            a started one is ready; a stopped one refuses connections; where a watch is open it
                                            takes all of the 10 s to stop: tests that need no clean end say kill_after=0.0
    .pause() .resume()                      SIGSTOP and SIGCONT of the API server: connections are accepted and nobody answers
    .compact()                              -> int, the revision: older resource versions get 410 Gone, watches and continued lists;
                                            it restarts the API server
    .etcd("range", {...})                   -> decoded JSON; etcd's own interface, past the API server
    .processes                              by name: etcd, kube-apiserver, kube-controller-manager, each with pid, runs, log (a Path),
                                            start, stop, pause, resume: a paused etcd makes a server that answers late, and with errors
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from tests.kubernetes.certificates import Authority
from tests.kubernetes.processes import STOP_TIME, Port, Process

START_TIME = 120.0  # s, on a machine that does much else
ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVER_NAMES = ("IP:127.0.0.1", "DNS:localhost", "DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local")
CONTROLLER_USER = "system:kube-controller-manager"
# The nodes of tests have no kubelet: these two would taint the nodes and delete their pods after a while.
CONTROLLERS_OFF = ("node-lifecycle-controller", "pod-garbage-collector-controller")
TOKEN_SECONDS = 3_600


class ControlPlane:
    """See the module's docstring for all that tests use."""

    def __init__(self, binaries: Path, folder: Path, apiserver: Sequence[str] = (), etcd: Sequence[str] = ()) -> None:
        """Nothing runs before `start`. `apiserver` and `etcd` are further arguments of theirs, which win over ours."""
        self.folder = folder
        self.certificates = Authority(folder / "certificates")
        self.ca_file = self.certificates.certificate
        self._binaries = binaries
        self._ports = {"etcd": Port(), "kube-apiserver": Port()}
        self.url = f"https://127.0.0.1:{self._ports['kube-apiserver'].number}"
        self.admin_kubeconfig = self.user_kubeconfig("admin", "system:masters")
        self._token_keys = self.certificates.key_pair("service-accounts")
        commands = {"etcd": [*self._etcd(), *etcd], "kube-apiserver": [*self._apiserver(), *apiserver]}
        commands["kube-controller-manager"] = self._controller_manager()
        self.processes = {name: Process(name, command, folder) for name, command in commands.items()}
        self._clients: list[Any] = []

    # Running

    def start(self) -> None:
        """etcd and the API server, until it is ready. Raises AssertionError with the end of the log of the one that is not."""
        self.processes["etcd"].start()
        self.start_apiserver()

    def stop(self) -> None:
        """End everything, and give the ports back."""
        for client in self._clients:
            client.close()
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self.processes[name].close()
        for port in self._ports.values():
            port.close()

    def start_apiserver(self) -> None:
        """Until it is ready; does nothing where it runs."""
        self.processes["kube-apiserver"].start()
        self._wait_until_ready()

    def stop_apiserver(self, kill_after: float = STOP_TIME) -> None:
        """SIGTERM, and SIGKILL after some seconds (open watches delay its end); from then on connections are refused."""
        self.processes["kube-apiserver"].stop(kill_after)

    def restart_apiserver(self, kill_after: float = STOP_TIME) -> None:
        """Stop it and start it: etcd keeps every object."""
        self.stop_apiserver(kill_after)
        self.start_apiserver()

    def pause(self) -> None:
        """A half-open server: connections are accepted by the kernel, and nobody answers."""
        self.processes["kube-apiserver"].pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.processes["kube-apiserver"].resume()

    def ensure(self) -> None:
        """Have etcd and the API server run, whatever a test did to them."""
        for process in self.processes.values():
            process.resume()
        self.start()

    def start_controllers(self) -> None:
        """Until they work: until one has made the ConfigMap again that every namespace has of it."""
        self.user_kubeconfig(CONTROLLER_USER)
        proof = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
        self.request("DELETE", proof)
        self.processes["kube-controller-manager"].start()
        self._wait(self.processes["kube-controller-manager"], lambda: self.request("GET", proof)[0] == 200)

    def stop_controllers(self) -> None:
        """SIGTERM, and SIGKILL after 10 s."""
        self.processes["kube-controller-manager"].stop()

    def _wait_until_ready(self) -> None:
        self._wait(self.processes["kube-apiserver"], lambda: self.request("GET", "/readyz", timeout=5)[0] == 200)

    def _wait(self, process: Process, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIME
        last = ""
        while process.runs and time.monotonic() < deadline:
            try:
                if ready():
                    return
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            time.sleep(0.05)
        raise AssertionError(f"{process.name} is not ready ({'it runs' if process.runs else 'it has ended'}) {last}\n{process.tail()}")

    # Commands

    def _etcd(self) -> list[str]:
        address = f"http://127.0.0.1:{self._ports['etcd'].number}"
        urls = [f"--listen-client-urls={address}", f"--advertise-client-urls={address}", "--listen-peer-urls=http://127.0.0.1:0"]
        return [str(self._binaries / "etcd"), f"--data-dir={self.folder / 'etcd'}", *urls, "--log-level=warn"]

    def _apiserver(self) -> list[str]:
        certificate, key = self.certificates.server("kube-apiserver", *SERVER_NAMES)
        private, public = self._token_keys
        options = {
            "etcd-servers": f"http://127.0.0.1:{self._ports['etcd'].number}",
            "etcd-compaction-interval": "0",  # compact() alone compacts
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",  # an EndpointSlice may not hold a loopback address
            "secure-port": self._ports["kube-apiserver"].number,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.ca_file,
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
            "service-cluster-ip-range": "10.96.0.0/16",
            "service-account-issuer": ISSUER,
            "service-account-key-file": public,
            "service-account-signing-key-file": private,
            "profiling": "false",
        }
        return [str(self._binaries / "kube-apiserver"), *arguments(options)]

    def _controller_manager(self) -> list[str]:
        options = {
            "kubeconfig": self._kubeconfig_path(CONTROLLER_USER),
            "controllers": ",".join(["*", *(f"-{name}" for name in CONTROLLERS_OFF)]),
            "leader-elect": "false",
            "secure-port": "0",
            "root-ca-file": self.ca_file,
            "service-account-private-key-file": self._token_keys[0],
            "use-service-account-credentials": "true",
        }
        return [str(self._binaries / "kube-controller-manager"), *arguments(options)]

    # Who one is

    def user_kubeconfig(self, user: str, *groups: str) -> Path:
        """A kubeconfig with a client certificate, which the API server sees as this user in these groups."""
        certificate, key = self.certificates.client(user, *groups)
        return self._write_kubeconfig(user, {"client-certificate": str(certificate), "client-key": str(key)})

    def kubeconfig(self, service_account: str, seconds: int = TOKEN_SECONDS) -> Path:
        """A kubeconfig with a token of "namespace/name"."""
        return self._write_kubeconfig(service_account, {"token": self.token(service_account, seconds)}, service_account.split("/")[0])

    def token(self, service_account: str, seconds: int = TOKEN_SECONDS) -> str:
        """A token by TokenRequest; the service account "namespace/name" is made where it is absent, its namespace is not."""
        namespace, name = service_account.split("/")
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self._made(path, {"metadata": {"name": name}})
        status, answer = self.request("POST", f"{path}/{name}/token", {"spec": {"expirationSeconds": seconds}})
        assert status == 201, answer
        return str(answer["status"]["token"])

    def service_account(self, service_account: str, seconds: int = TOKEN_SECONDS) -> Path:
        """A directory as /var/run/secrets/kubernetes.io/serviceaccount of a pod; calling it again renews the token in place."""
        folder = self.folder / "service-accounts" / service_account
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        (folder / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (folder / "namespace").write_text(service_account.split("/")[0])
        (folder / ".new").write_text(self.token(service_account, seconds))
        (folder / ".new").rename(folder / "token")
        return folder

    def _kubeconfig_path(self, user: str) -> Path:
        return self.folder / f"{user.replace('/', '-').replace(':', '-')}.kubeconfig"

    def _write_kubeconfig(self, name: str, user: dict[str, str], namespace: str = "default") -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        context = {"cluster": "test", "user": name, "namespace": namespace}
        lists = {"clusters": ("test", "cluster", cluster), "users": (name, "user", user), "contexts": ("test", "context", context)}
        text = {plural: [{"name": label, singular: value}] for plural, (label, singular, value) in lists.items()}
        path = self._kubeconfig_path(name)
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "test", **text}))
        return path

    # Asking

    def client(self, service_account: str = "", *, impersonate: str = "") -> Any:
        """A new ApiClient: the admin's, a service account's ("namespace/name"), or of whom the admin impersonates (a user's name)."""
        path = self.kubeconfig(service_account) if service_account else self.admin_kubeconfig
        configuration = kubernetes_client.Configuration()
        kubernetes_config.load_kube_config(str(path), client_configuration=configuration)
        configuration.proxy = None
        client = kubernetes_client.ApiClient(configuration)
        if impersonate:
            client.set_default_header("Impersonate-User", impersonate)
        self._clients.append(client)
        return client

    def kubectl(self, *words: str, input: str = "", impersonate: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`kubectl WORDS` by the admin. Raises AssertionError with what it said where it fails, unless told not to check."""
        who = [
            f"--kubeconfig={self.admin_kubeconfig}",
            f"--cache-dir={self.folder / 'kubectl'}",
            *([f"--as={impersonate}"] if impersonate else []),
        ]
        command = [str(self._binaries / "kubectl"), *who, *words]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(words)}: {done.stderr}"
        return done

    def request(self, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """One request by the admin: the status, and the decoded JSON or the text. Raises OSError where nobody answers."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.certificates.folder / "admin.crt", self.certificates.folder / "admin.key")
        connection = http.client.HTTPSConnection(urlsplit(self.url).netloc, timeout=timeout, context=context)
        return exchange(connection, method, path, body)

    def etcd(self, verb: str, body: dict[str, Any]) -> Any:
        """One call of etcd's JSON gateway, POST /v3/kv/VERB (etcd.io, "gRPC gateway"): keys and values are base64, numbers text."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["etcd"].number, timeout=30)
        status, answer = exchange(connection, "POST", f"/v3/kv/{verb}", body)
        assert status == 200, answer
        return answer

    def compact(self) -> int:
        """Have etcd forget all that is older than now: the revision. The API server is restarted, or its watch cache would still know."""
        self.stop_apiserver(kill_after=1.0)
        revision = self.etcd("range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"]
        self.etcd("compaction", {"revision": revision, "physical": True})
        self.start_apiserver()
        return int(revision)

    # Namespaces

    def make_namespace(self, name: str) -> None:
        """A namespace with the service account that pods have where nothing else is said; there may be no controller to make it."""
        self._made("/api/v1/namespaces", {"metadata": {"name": name}})
        self._made(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})

    def remove_namespace(self, name: str) -> None:
        """With the objects in it that tests make; a controller would do it, but need not be there."""
        for kind in CONTENTS:
            self.request("DELETE", f"/{kind.replace('*', f'namespaces/{name}')}", {"gracePeriodSeconds": 0})
        path = f"/api/v1/namespaces/{name}"
        self.request("DELETE", path)
        self.request("PUT", f"{path}/finalize", {"metadata": {"name": name}, "spec": {"finalizers": []}})

    def _made(self, path: str, body: dict[str, Any]) -> None:
        status, answer = self.request("POST", path, body)
        assert status in (201, 409), answer


CONTENTS = (
    "apis/apps/v1/*/daemonsets",
    "apis/apps/v1/*/deployments",
    "apis/apps/v1/*/replicasets",
    "apis/batch/v1/*/jobs",
    "apis/coordination.k8s.io/v1/*/leases",
    "apis/discovery.k8s.io/v1/*/endpointslices",
    "apis/networking.k8s.io/v1/*/networkpolicies",
    "apis/rbac.authorization.k8s.io/v1/*/rolebindings",
    "apis/rbac.authorization.k8s.io/v1/*/roles",
    "api/v1/*/configmaps",
    "api/v1/*/pods",
    "api/v1/*/secrets",
    "api/v1/*/serviceaccounts",
    "api/v1/*/services",
)


def arguments(options: dict[str, Any]) -> list[str]:
    """--name=value of each."""
    return [f"--{name}={value}" for name, value in options.items()]


def exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> tuple[int, Any]:
    """One request on a connection of its own."""
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", "Accept": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        kind = response.getheader("Content-Type", "")
        return response.status, json.loads(answer) if kind.startswith("application/json") else answer.decode()
    finally:
        connection.close()
