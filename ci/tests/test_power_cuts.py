"""Power cuts of an emulated Pi that installs an update, tries it, confirms it and changes its mind, while content is added.

Before each of these steps its state is saved. Again and again an emulator goes on from there, with a copy of the card, and is
killed at a random moment of the step; some of the nodes are then started again with that card. All that was written to the card
while no power was cut is recorded (QEMU's blklogwrites) and replayed to hundreds of moments, with torn and reordered sectors; of
these cards some are started as far as the boot script's decision. `mesh-lab cuts` looks at all cards: the slot that the boot script
would take is whole, the file system can be repaired, identity and store are the node's."""

import random
import re
import shutil
import subprocess
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ci/emulator"))
from pi import Deadline, EmulatedPi  # noqa: E402
from sdcard import Card  # noqa: E402
from test_pis import APPLY, BOOT, Pis, identity, until  # noqa: E402
import systems  # noqa: E402


# Typed before a step, so that content is added meanwhile.
ADD = "(while :; do head -c 60000 /dev/urandom > /tmp/g; ipfs add -Q /tmp/g; sleep 1; done) >/dev/null 2>&1 &"
# The steps, in order: how many of 60 kills are in it, what is typed, and what is seen at its end.
STEPS = {
    "installation": (15, f"{ADD} meshctl update apply /boot/x.bundle 2>&1", r"version 2\.0-cuts \(release 10\) is in slot B"),
    "restart": (15, f"{ADD} reboot", r"booting slot B, version 2\.0-cuts"),
    "confirmation": (15, f"{ADD} meshctl update confirm; meshctl update status", r"B +2\.0-cuts .*running, confirmed"),
    "changes": (15, f"{ADD} for i in 1 2 3 4; do meshctl update rollback; meshctl update confirm; done; echo end of changes", r"^end of changes"),
}


def sparse_copy(source, target):
    """Copies a card."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


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
        sparse_copy(self.pi.card.path, self.before)

    def look(self, *words):
        """Runs `mesh-lab cuts`; what it says in the end, and the cards that it names: [(path, slot, version)]."""
        cids = [w for cid in self.cids for w in ("--cid", cid)]
        slots = [w for path in self.slots for w in ("--system", path)]
        text = systems.run(systems.program("mesh-lab"), "cuts", *slots, *cids, *words)
        return text.splitlines()[-1], re.findall(r"^card (\S+) ([AB]) (\S+)$", text, re.M)

    def is_recorded(self):
        """All steps, the state before each saved; how long each takes is in `times`."""
        self.pi.record = self.log
        self.pi.start()
        self.pis.ready(self.pi)
        until(self.pi, "meshctl update status", r"running, confirmed", 120)
        for step, (_, words, end) in STEPS.items():
            self.saves(step)
            start = self.pi.clock()
            self.pi.send(f"{words}\n")
            self.pi.expect(end, APPLY)
            self.times[step] = self.pi.clock() - start
            if step == "restart":
                self.pis.ready(self.pi)
                self.times["reboot to ready"] = self.pi.clock() - start
        self.pi.kill()

    def saves(self, step):
        """Saves a state that is of use: QEMU can't go on from one in the midst of a transfer to or from the card."""
        for _ in range(5):
            self.pi.run("kill $! 2>/dev/null; sync; sleep 1; sync", check=False)
            with self.pi.frozen():
                self.pi.save(self.folder / f"{step}.state")
                sparse_copy(self.pi.card.path, self.folder / f"{step}.img")
                with EmulatedPi(self.pis.logs, step, Card(self.folder / f"{step}.img")) as pi:
                    good = self.resumes(pi, step)
                if good:
                    sparse_copy(self.pi.card.path, self.folder / f"{step}.img")
                    return
        raise AssertionError(f"no state before {step} goes on\n{self.pi.tail()}")

    def resumes(self, pi, step):
        """Goes on from before a step; false if the node does not get at its card."""
        pi.resume(self.folder / f"{step}.state")
        try:
            pi.run("dd if=/dev/mmcblk0 of=/dev/null bs=4k count=1 skip=77 iflag=direct", 20)
        except Deadline:
            return False
        return True

    def killed(self, number, step, share, whole):
        """Goes on from before a step and pulls the plug at a moment from 0 (its start) to 1 (a second after its end); looks at the card;
        `whole`: and starts it again."""
        path = self.folder / f"kill{number}.img"
        sparse_copy(self.folder / f"{step}.img", path)
        with EmulatedPi(self.pis.logs, f"kill{number}", Card(path)) as pi:
            if not self.resumes(pi, step):
                raise AssertionError(f"it does not go on\n{pi.tail()}")
            moment = time.monotonic() + share * (self.times[step] + 1)
            pi.send(f"{STEPS[step][1]}\n")
            while time.monotonic() < moment:
                time.sleep(0.01)
            pi.kill()
        # The node's identity is that on the card of before.
        _, cards = self.look("--work", self.folder / f"look{number}", self.before, path)
        if whole:
            self.starts(f"kill{number}", *cards[-1], True)
        path.unlink()
        shutil.rmtree(self.folder / f"look{number}")

    def kills(self, number, whole, at_once=2):
        """So many kills, each `whole`-th node started again; returns {step: how many}."""
        done = {step: -(-number * share // 60) for step, (share, *_) in STEPS.items()}
        plan = [step for step, times in done.items() for _ in range(times)]
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [pool.submit(self.killed, n, step, self.chance.random(), n % whole == 0) for n, step in enumerate(plan)]
            for n, job in enumerate(jobs, 1):
                job.result()
                if n % 20 == 0:
                    print(f"{n} of {len(jobs)} kills, all good", flush=True)
        return done

    def is_replayed(self, points, data, keep):
        """Replays the recording; returns what was said, and the cards that were kept, as `look`."""
        return self.look("--work", self.folder / "replay", "--card", self.before, "--log", self.log, "--points", points,
                         "--data", data, "--keep", keep)

    def starts(self, number, path, slot, version, whole):
        """Starts a card that a cut left, named so in the logs: the boot script must decide as the replay says; `whole`: the node comes up with
        all it had."""
        with EmulatedPi(self.pis.logs, f"{number}", Card(path)) as pi:
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

    def start_all(self, cards, at_once=2):
        """Starts cards as far as the boot script's decision; removes them."""
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [pool.submit(self.starts, f"cut{n}", *card, False) for n, card in enumerate(cards)]
        for job in jobs:
            job.result()
        for path, *_ in cards:
            Path(path).unlink()


class PowerCuts(Pis):
    """See the module's text."""

    def test_a_node_always_boots_a_whole_system_with_its_identity_and_its_store(self):
        story, begun = Story(type(self)), time.monotonic()

        def done(what):
            print(f"\n{time.monotonic() - begun:4.0f} s: {what}", end=" ", flush=True)

        story.lives()
        story.is_recorded()
        done(f"seconds: {story.times}")
        kills = story.kills(60, 4)
        done(f"killed during {kills}, every fourth started again")
        text, kept = story.is_replayed(450, 40, 6)
        done(text)
        story.start_all(kept)
        done(f"{len(kept)} cards of the recording were started")


if __name__ == "__main__":
    unittest.main(verbosity=2)
