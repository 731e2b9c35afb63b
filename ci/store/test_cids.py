"""The same files get the same CIDs from `ipfs add`, from kubo and from the npm importer.

The seed is printed; P2PMESH_SEED=N repeats a run.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "ci/setup"), str(ROOT / "ci/store")]
import ipfs  # noqa: E402
from cases import KIB, LIMIT, MIB, V0_CHUNK, V1_CHUNK, Cases, block_bytes, links_bytes  # noqa: E402
from common import BuildError  # noqa: E402

RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "crates/target")) / "release"
V0, V1 = "unixfs-v0-2015", "unixfs-v1-2025"
START = 20  # seconds for the store to open its socket


def skip(what, why):
    """Ends a test that can't run here, and says so where the runner counts it."""
    print(f"SKIPPED: {what}: {why}", flush=True)
    raise unittest.SkipTest(why)


class Lines:
    """A child that answers a line with a line."""

    def __init__(self, command, folder):
        # kubo's library leaves a log where it runs
        self.child = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, lines):
        """Sends all the lines while the answers are read: neither pipe fills up."""
        answers = []
        for line in lines:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
            answer = self.child.stdout.readline()
            if not answer:
                raise AssertionError(f"{self.child.args[:2]} ended at {line!r}")
            answers.append(answer.rstrip("\n"))
        return answers

    def end(self):
        """Ends the child."""
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Store:
    """Our store, and `ipfs add --only-hash` on it."""

    def __init__(self, folder):
        self.run = folder / "run"
        (folder / "p2pmesh.toml").write_text("")
        command = [RELEASE / "mesh-store", "--state-dir", folder / "state", "--run-dir", self.run,
                   "--config", folder / "p2pmesh.toml", "--listen", "127.0.0.1:0"]
        self.log = open(folder / "mesh-store.log", "w", encoding="utf-8")
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + START
        while not (self.run / "mesh-store.sock").exists():
            if self.child.poll() is not None or time.monotonic() > end:
                raise AssertionError("mesh-store did not start: " + (folder / "mesh-store.log").read_text())
            time.sleep(0.02)

    def cids(self, path, *flags):
        """CIDs of a folder (as '') and of its entries, by name."""
        command = [RELEASE / "meshctl", "--run-dir", self.run, "ipfs", "add", "-r", "-n", *flags, path]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.findall(rf"^added (\S+) {re.escape(path.name)}(?:/(c\d+))?$", out, re.M)
        return {name: cid for cid, name in found}

    def end(self):
        """Ends the store."""
        self.child.terminate()
        self.child.wait(10)
        self.log.close()


class Cids(unittest.TestCase):
    """Each test makes its own cases."""

    @classmethod
    def setUpClass(cls):
        cls.seed = int(os.environ.get("P2PMESH_SEED") or random.SystemRandom().randrange(1 << 32))
        print(f"seed {cls.seed}: repeat with P2PMESH_SEED={cls.seed}", flush=True)
        if not (RELEASE / "mesh-store").exists():
            raise AssertionError("mesh-store is missing; build it with: cargo build --manifest-path crates/Cargo.toml --release --bins")
        cls.folder = Path(tempfile.mkdtemp(prefix="p2pmesh-cids-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.store = Store(cls.folder)
        cls.addClassCleanup(cls.store.end)

    def cases(self, name, per_batch=64):
        """An empty set of cases."""
        root = self.folder / name
        root.mkdir()
        self.addCleanup(shutil.rmtree, root, ignore_errors=True)
        return Cases(root, random.Random(f"{self.seed} {name}"), per_batch)

    def kubo(self):
        """Kubo, to be asked for CIDs of paths."""
        try:
            library = ipfs.kubo()
        except (BuildError, OSError) as error:
            skip("CIDs beside kubo", error)
        repo = self.folder / "kubo-repository"
        repo.mkdir()
        child = Lines([sys.executable, str(ROOT / "ci/store/kubo.py"), str(library), str(repo)], self.folder)
        self.addCleanup(child.end)
        return child

    def npm(self):
        """The npm importer."""
        try:
            node, packages = ipfs.npm()
        except (BuildError, OSError) as error:
            skip("CIDs beside the npm importer", error)
        child = Lines([str(node), str(ROOT / "ci/store/importer.mjs"), str(packages)], self.folder)
        self.addCleanup(child.end)
        return child

    def compare_npm(self, npm, cases, profile, flags=(), **options):
        """Every case, one by one."""
        wrong = []
        for batch, names in cases.batches.items():
            ours = self.store.cids(cases.root / batch, "--profile", profile, *flags)
            asked = [json.dumps({"id": n, "path": str(cases.root / batch / n), "profile": profile, **options}) for n in names]
            for name, answer in zip(names, npm.ask(asked)):
                theirs = json.loads(answer)["cid"]
                if ours.get(name) != theirs:
                    wrong.append(f"{batch}/{name} {profile} {flags}: ours {ours.get(name)}, npm's {theirs}")
        self.assertEqual(wrong, [])

    def test_beside_kubo(self):
        """`unixfs-v0-2015`, more than a thousand files and trees. A batch's CID says that all in it agree; where it does not,
        each case is asked for."""
        kubo = self.kubo()
        cases = self.cases("kubo")
        everything(cases, backslash=True)
        wrong = []
        for batch, names in cases.batches.items():
            path = cases.root / batch
            ours = self.store.cids(path, "--hidden")   # the library adds hidden files, too
            self.assertEqual(len(ours), len(names) + 1)
            if ours[""] != kubo.ask([str(path)])[0]:
                theirs = kubo.ask([str(path / name) for name in names])
                wrong += [f"{batch}/{n}: ours {ours[n]}, kubo's {t}" for n, t in zip(names, theirs) if t and ours[n] != t]
                wrong.append(f"{batch}: ours {ours['']}")
        print(f"{cases.count} files and trees, {len(cases.batches)} batches beside kubo, {len(wrong)} differ", flush=True)
        self.assertGreaterEqual(cases.count, 1000)
        self.assertEqual(wrong, [])

    def test_beside_npm(self):
        """Both profiles, more than a thousand files and trees each."""
        npm = self.npm()
        cases = self.cases("npm")
        everything(cases, backslash=False)
        for profile in [V1, V0]:
            self.compare_npm(npm, cases, profile)
        print(f"{cases.count} files and trees beside the npm importer, in two profiles", flush=True)
        self.assertGreaterEqual(cases.count, 1000)

    def test_other_parameters_beside_npm(self):
        """CID versions, raw leaves, and chunks so small that trees get three levels deep."""
        npm = self.npm()
        count = 0
        for chunk, sizes in [(16, [174 * 16 - 1, 174 * 16, 174 * 16 + 1, 174 * 174 * 16 + 1]), (1000, [174_000, 174_001, 999]),
                             (4096, [4096, 4097, 174 * 4096, 174 * 4096 + 1, 300_000])]:
            cases = self.cases(f"chunk{chunk}")
            for size in sizes:
                cases.file(size)
            for flags, options in [((), {}), (("--cid-version=1",), {"version": 1, "raw": True}),
                                   (("--cid-version=1", "--raw-leaves=false"), {"version": 1, "raw": False}),
                                   (("--raw-leaves",), {"raw": True})]:
                self.compare_npm(npm, cases, V0, (f"--chunker=size-{chunk}", *flags), chunk=chunk, **options)
                count += cases.count
        cases = self.cases("v1chunk")
        for size in [1024 * KIB, 1024 * KIB + 1, 2048 * KIB + 1]:
            cases.file(size)
        self.compare_npm(npm, cases, V1, ("--chunker=size-1024",), chunk=1024)
        print(f"{count + cases.count} files in other parameters", flush=True)

    def test_mode_and_time_beside_npm(self):
        """Permissions and times of change, on files of one and several blocks, directories, sharded ones and symlinks."""
        npm = self.npm()
        cases = self.cases("meta")
        rng = cases.rng
        paths = [cases.file(size) for size in [0, 1, 1000, V1_CHUNK, V1_CHUNK + 1]] + [cases.tree(2) for _ in range(40)]
        paths.append(cases.wide([200] * 1200, batch="wide"))
        below = [Path(folder) / name for path in paths for folder, names, files in os.walk(path) for name in names + files]
        for path in reversed([*paths, *below]):   # a directory's time changes when something is put into it
            # npm writes broken numbers for the years 2038 to 2106
            seconds = rng.choice([rng.randrange(1 << 31), (1 << 32) + rng.randrange(1 << 32)])
            time_ns = seconds * 1_000_000_000 + rng.choice([0, 1, 999_999_999])
            if not path.is_symlink():
                # npm leaves out what it takes for the default
                path.chmod(rng.choice([0o700, 0o711, 0o1777] if path.is_dir() else [0o600, 0o444, 0o4755, 0o755]))
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
        self.compare_npm(npm, cases, V1, ("--preserve-mode", "--preserve-mtime"), meta=True)
        print(f"{cases.count} files and trees with mode and time", flush=True)


def everything(cases, backslash):
    """More than a thousand cases."""
    rng = cases.rng
    for chunk in [V0_CHUNK, V1_CHUNK]:
        for size in [chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 2 * chunk + 1]:
            cases.file(size)
    for size in [0, 1, 2, 3, 127, 128, 129, 16383, 16384, 16385, 65535, 65536, 65537]:
        cases.file(size)
        cases.file(size, fill=b"\0")
    cases.file(174 * V0_CHUNK, fill=b"\0", batch="rows")
    cases.file(174 * V0_CHUNK + 1, fill=b"\0", batch="rows")
    for _ in range(500):
        cases.file(rng.randrange(3000))
    for _ in range(40):
        cases.file(rng.randrange(700 * KIB))
    for depth in [1, 20, 60]:
        cases.deep(depth)
    for _ in range(430):
        cases.tree(rng.randrange(4), backslash=backslash)
    # Around the threshold of each profile. A directory of exactly 256 KiB of links is none here: the kubo in the wheel shards
    # it, kubo from 0.40 on and npm do not (crates/content-id/src/import/tests.rs has kubo's vector).
    for total in [LIMIT - 1, LIMIT + 1, LIMIT + 34]:
        cases.wide(links_bytes(total, 230), batch=f"links{total}")
    for total in [LIMIT - 1, LIMIT, LIMIT + 1]:
        cases.wide(block_bytes(total, 60), batch=f"block{total}")
    cases.wide([rng.randint(6, 200) for _ in range(3000)], batch="wide")
    cases.file(3 * MIB + 17)


if __name__ == "__main__":
    unittest.main()
