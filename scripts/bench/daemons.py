"""A devchain and real daemons for the benches, on loopback, in a directory that goes away."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


def built(*arguments):
    """Builds the program optimised and says where it is; CAPEX_BENCH_BIN names one built before."""
    if before := os.environ.get("CAPEX_BENCH_BIN"):
        return pathlib.Path(before).resolve()
    subprocess.run(["cargo", "build", "--release", "-p", "capex", *arguments], cwd=ROOT, check=True)
    return ROOT / "target" / "release"


class World:
    """A home for processes; all of them end with it."""

    def __init__(self, program):
        self.program = program
        self.directory = tempfile.TemporaryDirectory(prefix="capex-bench-")
        self.home = pathlib.Path(self.directory.name)
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()
        self.directory.cleanup()

    def spawn(self, name, *arguments, **environment):
        log = open(self.home / f"{name}.log", "w")
        environment = {"HOME": str(self.home), "CAPEX_LOG": "warn", **environment}
        process = subprocess.Popen(
            [self.program / "capex", *arguments], env=environment, stdout=log, stderr=log
        )
        self.processes.append(process)
        return process

    def devchain(self):
        """Starts a chain; answers what daemons on it need to know."""
        directory = self.home / "chain"
        self.spawn("chain", "devchain", "--listen", "127.0.0.1:0", "--dir", str(directory))
        addr = until(lambda: read(directory / "devchain.addr"))
        return {"CAPEX_CHAIN_URL": f"http://{addr}", "CAPEX_CHAIN_COOKIE": str(directory / ".cookie")}

    def daemon(self, name, network, peers=(), **environment):
        """Starts a daemon and waits for its API."""
        datadir = self.home / name
        arguments = ["up", "--network", network, "--datadir", str(datadir)]
        arguments += ["--listen", "/ip4/127.0.0.1/tcp/0", "--api-listen", "127.0.0.1:0"]
        for peer in peers:
            arguments += ["--peer", peer]
        self.spawn(name, *arguments, **environment)
        return Daemon(datadir)


class Daemon:
    """The API of one daemon."""

    def __init__(self, datadir):
        self.datadir = datadir
        ends = until(lambda: json.loads(read(datadir / "endpoints") or "{}"))
        self.api = ends["api"]
        self.cookie = until(lambda: read(datadir / "cookie"))

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}/api/v1{path}", data=data)
        request.add_header("authorization", f"Bearer {self.cookie}")
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            raise OSError(f"{path}: {refused} {refused.read().decode()}") from refused

    def status(self):
        return self.call("/status")


def read(path):
    """The text of a file, or nothing as long as there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def until(look, most_s=60, pause_s=0.05):
    """Waits for `look` to find something."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (OSError, ValueError):
            pass
        time.sleep(pause_s)
    raise TimeoutError("nothing came")


def quantile(values, share):
    """The value below which a share of all values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
