"""Power cuts of an emulated Pi that installs an update, tries it, confirms it and changes its mind, while content is added.

All that it writes to its card is recorded (QEMU's blklogwrites). While it runs, it is stopped at random moments and its card looked
at as a pulled plug would leave it then; afterwards the recording is replayed to hundreds of other moments, with torn
and reordered sectors. `mesh-lab cuts` looks: the slot that the boot script would take is whole, the file system can be
repaired, identity and store are the node's. Samples of the cards are started, some as far as the boot script's decision,
some whole."""

import random
import re
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ci/emulator"))
from pi import EmulatedPi  # noqa: E402
from sdcard import Card  # noqa: E402
from test_pis import BOOT, Pis, identity, until  # noqa: E402
import systems  # noqa: E402

APPLY = 600


class Plug(threading.Thread):
    """Stops a Pi at random moments, copies its card, and looks at the copy; remembers what was wrong."""

    def __init__(self, pi, look, chance, pause):
        super().__init__(daemon=True)
        self.pi, self.look, self.chance, self.pause = pi, look, chance, pause
        self.cuts, self.wrong, self.over = 0, None, threading.Event()

    def run(self):
        copy = self.pi.card.path.with_suffix(".cut")
        while not self.over.wait(self.chance.random() * 2 * self.pause):
            with self.pi.frozen():
                subprocess.run(["cp", "--sparse=always", self.pi.card.path, copy], check=True)
            try:
                self.look(copy)
            except AssertionError as error:
                self.wrong = error
                return
            self.cuts += 1

    def stop(self):
        """Ends it; raises what was wrong."""
        self.over.set()
        self.join()
        if self.wrong:
            raise self.wrong


class Story:
    """A node whose card is recorded. `pis`: the test class that makes Pis."""

    def __init__(self, pis, seed=7):
        self.pis, self.folder, self.chance = pis, pis.folder, random.Random(seed)
        self.pi = pis.make("recorded", size=256 << 20)
        self.systems = systems.Systems(self.pi.card, self.folder)
        self.pi.card.put_file("p2pmesh.toml", self.systems.toml("recorded"))
        old, new = self.systems.own(), self.systems.changed("2.0-cuts", {"etc/hosts": b"# another system\n127.0.0.1 localhost\n"})
        self.slots = [self.folder / "old.slot", self.folder / "new.slot"]
        for path, data in zip(self.slots, (old, new), strict=True):
            path.write_bytes(data)
        self.pi.card.put_file("x.bundle", self.systems.bundle("new", new, release=10).read_bytes())
        self.before, self.log = self.folder / "before.img", self.folder / "writes.log"
        self.cids, self.identity, self.times = [], None, {}

    def lives(self):
        """The first boot, and content that must never be lost."""
        self.pi.start()
        self.pis.ready(self.pi)
        until(self.pi, "meshctl update status", r"running, confirmed", 120)
        for _ in range(3):
            self.cids.append(until(self.pi, "head -c 200000 /dev/urandom > /tmp/f && ipfs add -Q /tmp/f", r"\bQm\w{44}\b", 60)[0])
        self.identity = identity(self.pi)
        self.pi.kill()
        subprocess.run(["cp", "--sparse=always", self.pi.card.path, self.before], check=True)

    def look(self, *words):
        """Runs `mesh-lab cuts`; what it prints."""
        cids = [w for cid in self.cids for w in ("--cid", cid)]
        slots = [w for path in self.slots for w in ("--system", path)]
        return systems.run(systems.program("mesh-lab"), "cuts", *slots, *cids, *words)

    def is_recorded(self, pause, cuts):
        """Boot, installation, trial, confirmation, changes of the state, all under power cuts, at least so many; returns how
        many there were."""
        self.pi.record = self.log
        self.pi.start()
        plug = Plug(self.pi, lambda card: self.look("--work", self.folder / "look", card), self.chance, pause)
        plug.start()
        try:
            self.pis.ready(self.pi)
            until(self.pi, "meshctl update status", r"running, confirmed", 120)
            self.pi.run("(while :; do head -c 60000 /dev/urandom > /tmp/g; ipfs add -Q /tmp/g >/dev/null; sleep 1; done) & true")
            start = time.monotonic()
            answer = self.pi.run("meshctl update apply /boot/x.bundle 2>&1", APPLY)
            if not re.search(r"version 2\.0-cuts \(release 10\) is in slot B", answer):
                raise AssertionError(f"not installed: {answer}")
            self.times["installation"] = time.monotonic() - start
            self.pi.send("reboot\n")
            self.pi.expect(r"booting slot B, version 2\.0-cuts", BOOT)
            start = time.monotonic()
            self.pis.ready(self.pi)
            until(self.pi, "meshctl update status", r"B +2\.0-cuts .*running, confirmed", 120)
            self.times["trial"] = time.monotonic() - start
            changes = 0
            while changes < 8 or plug.cuts < cuts and not plug.wrong:
                changes += 1
                self.pi.run("meshctl update rollback; meshctl update confirm", 60)
                self.pi.run("head -c 60000 /dev/urandom > /tmp/g; ipfs add -Q /tmp/g", 60)
        finally:
            plug.stop()
            self.pi.kill()
        return plug.cuts

    def is_replayed(self, points, data, keep):
        """Replays the recording; returns what was said, and the cards that were kept: [(path, slot, version)]."""
        text = self.look("--work", self.folder / "replay", "--card", self.before, "--log", self.log, "--points", points,
                         "--data", data, "--keep", keep)
        return text, re.findall(r"^kept (\S+) ([AB]) (\S+)$", text, re.M)

    def starts(self, number, path, slot, version, whole):
        """Starts a card that a cut left: the boot script must decide as the replay says; `whole`: the node comes up with
        all it had."""
        with EmulatedPi(self.pis.logs, f"cut{number}", Card(path)) as pi:
            pi.start()
            if pi.expect(r"booting slot (\S+), version (\S+)\s", BOOT).groups() != (slot, version):
                raise AssertionError(f"the boot script does not take slot {slot}, version {version}\n{pi.tail()}")
            if whole:
                pi.expect(r"p2pmesh: node is ready: recorded\b", BOOT)
                pi.login()
                if identity(pi) != self.identity:
                    raise AssertionError("the node has another identity")
                for cid in self.cids:
                    pi.run(f"ipfs cat {cid} >/dev/null", 60)

    def start_all(self, kept, whole, at_once=2):
        """Starts the cards that were kept, `whole` of them as far as a log-in."""
        step = max(1, len(kept) // max(1, whole))
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [pool.submit(self.starts, n, *card, whole > 0 and n % step == step - 1) for n, card in enumerate(kept)]
        for job in jobs:
            job.result()


class PowerCuts(Pis):
    """See the module's text."""

    def test_a_node_always_boots_a_whole_system_with_its_identity_and_its_store(self):
        story = Story(type(self))
        story.lives()
        cuts = story.is_recorded(0.8, 60)
        self.assertGreaterEqual(cuts, 60)
        text, kept = story.is_replayed(450, 40, 6)
        print(f"{cuts} cuts while it ran, {text.splitlines()[-1]}")
        story.start_all(kept, 2)
        for path, _, _ in kept:
            Path(path).unlink()


if __name__ == "__main__":
    unittest.main(verbosity=2)
