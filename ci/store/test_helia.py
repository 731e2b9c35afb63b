"""An unmodified Helia and the store: content that one node has, asked for at another's routing and gateway."""

import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "ci/setup"))

import ipfs  # noqa: E402

BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TREE / "crates/target")) / "release"
PATIENCE = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Store:
    """A mesh-store on loopback, in a folder of its own."""

    def __init__(self, folder: pathlib.Path, peers: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        command = [str(BIN / "mesh-store"), "--state-dir", str(folder), "--run-dir", str(folder / "run"),
                   "--config", str(folder / "none.toml"), "--listen", self.address]
        for peer in peers:
            command += ["--peer", peer]
        self.log = open(folder / "log", "wb")
        self.child = subprocess.Popen(command, stderr=self.log)
        deadline = time.monotonic() + PATIENCE
        while b"serves http://" not in (folder / "log").read_bytes():
            if time.monotonic() > deadline or self.child.poll() is not None:
                raise AssertionError((folder / "log").read_text(errors="replace"))
            time.sleep(0.05)

    def add(self, path: pathlib.Path) -> str:
        command = [str(BIN / "meshctl"), "--run-dir", str(self.folder / "run"), "--json", "add", str(path)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
        return json.loads(out)[-1]["cid"] if out.lstrip().startswith("[") else json.loads(out.splitlines()[-1])["cid"]

    def end(self) -> None:
        self.child.terminate()
        self.child.wait(PATIENCE)
        self.log.close()


class Helia(unittest.TestCase):
    def test_helia_fetches_through_our_routing_and_gateway(self) -> None:
        node, packages = ipfs.npm()
        with tempfile.TemporaryDirectory(prefix="p2pmesh-helia-") as name:
            self.fetch(node, packages, pathlib.Path(name))

    def fetch(self, node: pathlib.Path, packages: pathlib.Path, folder: pathlib.Path) -> None:
        content = random.Random(1).randbytes(1_300_000)
        tree = folder / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub/inside.txt").write_bytes(b"inside a folder\n")
        (tree / "file.bin").write_bytes(content)
        there = Store(folder / "there", [])
        self.addCleanup(there.end)
        here = Store(folder / "here", [there.address])
        self.addCleanup(here.end)
        arguments = [f"http://{here.address}", there.add(tree / "file.bin"), there.add(tree), "sub/inside.txt"]
        run = subprocess.run([str(node), str(TREE / "ci/store/helia.js"), *arguments], capture_output=True, text=True,
                             timeout=PATIENCE, check=False, env={**os.environ, "NPM_FOLDER": str(packages)})
        self.assertEqual(run.returncode, 0, run.stderr)
        seen = json.loads(run.stdout.splitlines()[-1])

        def digest(data: bytes) -> dict:
            return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        self.assertEqual(seen["file"], digest(content))
        self.assertEqual(seen["part"], digest(content[300_000:301_000]))
        self.assertEqual(seen["inside"], digest(b"inside a folder\n"))
        self.assertEqual(sorted(seen["names"]), ["file.bin", "sub"])


if __name__ == "__main__":
    unittest.main()
