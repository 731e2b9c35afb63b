"""Emulated Pis with the image as it is flashed: two that find each other, share a file and update each other, and one that is
given bad input. Serial logs stay in build/test-logs/<test class>/."""

import json
import random
import re
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci/emulator"))
from sdcard import SECTOR, STATE, Card, find_image  # noqa: E402
from hub import Hub  # noqa: E402
from pi import SLOW, Deadline, EmulatedPi  # noqa: E402
import systems  # noqa: E402

READY = r"p2pmesh: node is ready: {name}\b"
HELLO_WORLD = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u"
BOOT = 150  # seconds until a node is ready: ten times what it takes, for busy machines
APPLY = 600  # seconds for an installation: the emulated card reads and writes some 2 MiB/s
NEW = 3 << 20  # bytes of the update that a node can't have


def until(pi, command, pattern, deadline):
    """Repeats a command on a Pi until its output matches `pattern`; returns the match."""
    end = pi.clock() + deadline * SLOW
    while True:
        output = pi.run(command, check=False)
        if found := re.search(pattern, output):
            return found
        if pi.clock() > end:
            raise Deadline(f"{pi.name}: '{command}' did not show '{pattern}' within {deadline} s, but:\n{output}\n{pi.tail()}")
        time.sleep(0.5)


def identity(pi):
    """The node's id, whatever else comes on the console meanwhile."""
    return until(pi, "ipfs id", r'"ID": "(\w+)"', 30)[1]


class Pis(unittest.TestCase):
    """A folder for cards, a folder for logs, a segment between the Pis."""

    @classmethod
    def setUpClass(cls):
        cls.image = find_image()  # no image is a failure here: the stage before makes it
        cls.logs = ROOT / "build/test-logs" / cls.__name__
        shutil.rmtree(cls.logs, ignore_errors=True)
        cls.folder = Path(tempfile.mkdtemp(prefix="test-pis-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)

    @classmethod
    def make(cls, name, hub=None, *, toml=None, direct=False, size=512 << 20):
        """A Pi with a fresh card of `size` bytes, not switched on yet."""
        card = Card.copy(cls.image, cls.folder / f"{name}.img", size)
        pi = EmulatedPi(cls.logs, name, card, networks=[hub.plug(name)] if hub else [], direct=direct)
        cls.addClassCleanup(pi.close)
        pi.prepare(toml)
        return pi

    @staticmethod
    def ready(pi, name=None, tries=1):
        """Waits until the node is ready after so many boots, and logs in."""
        pi.expect(READY.format(name=name or pi.name), BOOT * tries)
        pi.login()


class TwoPis(Pis):
    """From power-on to a shared file and an update, through U-Boot, over an Ethernet segment; configured are names and what has to do
    with updates."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hub = Hub()
        cls.addClassCleanup(cls.hub.stop)
        cls.one, cls.two = cls.make("example1", cls.hub), cls.make("example2", cls.hub)
        made = systems.Systems(cls.one.card, cls.folder, test_keys=False)
        for pi in (cls.one, cls.two):
            pi.card.put_file("p2pmesh.toml", made.toml(pi.name) + 'update.auto = "staged"\nupdate.settle = 3\n')
        new = made.grown("2.0-mesh", random.Random(4).randbytes(NEW))
        cls.one.card.put_file("x.bundle", made.bundle("mesh", new, release=int(made.start["S_REL"], 16) + 10).read_bytes())
        cls.hub.start()
        for pi in (cls.one, cls.two):
            pi.start()
        for pi in (cls.one, cls.two):
            cls.ready(pi)

    def test_0_the_watchdog_was_taken_over_running(self):
        self.assertEqual(self.one.run("cd /sys/class/watchdog/watchdog1 && cat identity state timeout"), "Software Watchdog\nactive\n60")
        # The kernel notes that /init has closed it armed.
        self.one.run("dmesg | grep -q 'watchdog1: watchdog did not stop'")

    def test_1_they_are_neighbours_with_routes(self):
        for pi in (self.one, self.two):
            until(pi, "meshctl --json neighbors", r"(?i)symmetric", 60)
        address = json.loads(self.two.run("meshctl --json status"))["addresses"]
        ula = next(a for a in address if a.startswith("fd"))
        until(self.one, "meshctl routes", re.escape(ula), 60)
        self.one.run(f"ping -c 1 -W 5 {ula}")

    def test_2_each_answers_to_its_name(self):
        until(self.one, "ping -c 1 -W 5 example2.local", r" 0% packet loss", 60)
        until(self.two, "ping -4 -c 1 -W 5 example1.local", r" 0% packet loss", 60)
        self.assertIn("example2", self.one.run("meshctl names"))

    def test_3_a_file_is_added_here_and_read_there(self):
        self.assertIn(HELLO_WORLD, self.one.run('echo "Hello World" | ipfs add'))
        self.assertEqual(self.two.run(f"ipfs cat {HELLO_WORLD}", 60), "Hello World")
        self.one.run("head -c 3000000 /dev/urandom > /tmp/big")
        cid = self.one.run("ipfs add -Q /tmp/big", 60).strip()
        here = self.one.run("sha256sum < /tmp/big")
        there = self.two.run(f"curl -sS --max-time 90 http://example1.local:8080/ipfs/{cid} | sha256sum", 100)
        self.assertEqual(here, there)
        # And through its own gateway, which fetches from the other node.
        own = self.two.run(f"curl -sS --max-time 90 http://example2.local:8080/ipfs/{cid} | sha256sum", 100)
        self.assertEqual(here, own)

    def test_3_a_browser_that_knows_only_the_name_sees_a_page(self):
        page = self.one.run("curl -sS --max-time 30 http://example2.local/ | grep -o '<h1>[^<]*</h1>'", 40)
        self.assertIn("<h1>example2</h1>", page)

    def restarts_updated(self, pi, node):
        """Waits until a node has started into the new system by itself; it has to be the same node, and is confirmed."""
        pi.expect(r"booting slot B, version 2\.0-mesh", APPLY)
        self.ready(pi)
        self.assertEqual(identity(pi), node)
        until(pi, "meshctl update status", r"B +2\.0-mesh .*running, confirmed", 120)

    def test_4_an_update_out_of_the_other_ones_store_keeps_identity_and_content(self):
        cid = re.search(r"\bQm\w{44}\b", self.one.run("ipfs add -Q /boot/x.bundle", 120))[0]
        type(self).nodes = [identity(pi) for pi in (self.one, self.two)]
        self.two.run('echo "kept over an update" > /tmp/kept')
        kept = self.two.run("ipfs add -Q /tmp/kept").strip()
        sent = self.hub.bytes["example1"]
        self.assertRegex(self.two.run(f"meshctl update apply {cid} 2>&1", APPLY), r"version 2\.0-mesh \(release \d+\) is in slot B")
        self.assertGreater(self.hub.bytes["example1"] - sent, NEW)
        # When the other one hears of the update it can't have it from itself.
        self.one.run(f"ipfs pin rm {cid} && ipfs repo gc >/dev/null", 60)
        type(self).sent = self.hub.bytes["example2"]
        self.restarts_updated(self.two, self.nodes[1])
        self.assertEqual(self.two.run(f"ipfs cat {kept}"), "kept over an update")

    def test_5_who_hears_of_the_update_fetches_it_takes_its_turn_and_is_confirmed(self):
        self.restarts_updated(self.one, self.nodes[0])
        self.assertGreater(self.hub.bytes["example2"] - self.sent, NEW)
        until(self.one, "ping -c 1 -W 5 example2.local", r" 0% packet loss", 60)

    def test_6_a_pulled_plug_loses_nothing_that_was_acknowledged(self):
        seed = 20
        chance = random.Random(seed)
        for cut in range(2):
            self.two.send("i=0; while true; do i=$((i+1)); head -c 200000 /dev/urandom > /tmp/f; "
                          "echo \"acknowledged $(ipfs add -Q /tmp/f) $(sha256sum < /tmp/f)\"; done\n")
            acknowledged = []
            for _ in range(chance.randint(2, 5)):
                line = self.two.expect(r"^acknowledged (\w+) (\w{64})", 90)
                acknowledged.append((line[1], line[2]))
            # Anywhere in the writing of the next one.
            end = time.monotonic() + chance.random() * 0.8
            while time.monotonic() < end:
                time.sleep(0.01)
            self.two.restart()
            self.ready(self.two)
            for cid, digest in acknowledged:
                self.assertIn(digest, self.two.run(f"ipfs cat {cid} | sha256sum", 60), f"cut {cut}, seed {seed}")


class BadInput(Pis):
    """The node boots, says what is wrong, and loses nothing that was good."""

    def boot(self, name, prepare=lambda pi: None, *, node=None, tries=1, **card):
        pi = self.make(name, **{"direct": True, **card})
        prepare(pi)
        pi.start()
        self.ready(pi, node or name, tries)
        return pi

    def status(self, pi):
        """Problems as a person sees them. meshctl ends with 1 when there are any."""
        return pi.run("meshctl status", check=False)

    def test_config_mistakes_are_named_and_the_rest_counts(self):
        toml = b'\xef\xbb\xbfhostname = "queen"\r\nhostnam = "x"\r\n[ap]\r\nchannel = "six"\r\n[mesh]\r\nid = \r\n'
        pi = self.boot("mistakes", node="queen", toml=toml)
        status = self.status(pi)
        for part in ("line 2", "hostnam", "line 4", "ap.channel", "line 6"):
            self.assertIn(part, status)
        self.assertTrue(pi.seen(r"p2pmesh\.toml"), "the console says it, too")
        pi.close()

    def test_a_binary_file_and_a_huge_one_leave_the_defaults(self):
        for name, data in (("binary", bytes(range(256)) * 20), ("huge", b"# " + b"x" * (10 << 20))):
            with self.subTest(name):
                pi = self.boot(name, node="mesh-[0-9a-f]{4}", toml=data)
                self.assertIn("p2pmesh.toml", self.status(pi))
                pi.close()

    def test_a_garbage_data_partition_is_made_anew(self):
        def garbage(pi):
            offset, length = pi.card.partition(4)
            pi.card.write(offset, random.Random(1).randbytes(min(length, 4 << 20)))

        pi = self.boot("garbage", garbage)
        self.assertRegex(self.status(pi), r"(?i)data partition")
        self.assertIn(HELLO_WORLD, pi.run('echo "Hello World" | ipfs add'))
        pi.close()

    def test_a_full_data_partition_boots_and_says_so(self):
        pi = self.boot("full", size=256 << 20)
        kept = pi.run("echo kept | ipfs add -Q").strip()
        node = json.loads(pi.run("meshctl --json status", check=False))["node"]
        pi.run("dd if=/dev/zero of=/data/filler bs=1M 2>/dev/null; sync", 120, check=False)
        output = pi.run("head -c 3000000 /dev/urandom | ipfs add", 60, check=False)
        self.assertRegex(output, r"(?i)full|no space")
        pi.restart()
        self.ready(pi)
        self.assertRegex(self.status(pi), r"(?i)full|no space|space left")
        self.assertEqual(pi.run(f"ipfs cat {kept}"), "kept")
        self.assertEqual(json.loads(pi.run("meshctl --json status", check=False))["node"], node)
        pi.close()

    def test_both_boot_states_garbage(self):
        def garbage(pi):
            for lba in STATE:
                pi.card.write(lba * SECTOR, random.Random(lba).randbytes(SECTOR))

        pi = self.boot("states", garbage, direct=False)
        self.assertTrue(pi.seen(r"both boot-state sectors are unreadable"))
        until(pi, "meshctl update status", r"(?i)confirmed", 90)
        pi.close()

    def test_a_damaged_root_image_falls_back_to_the_other_slot(self):
        def damage(pi):
            pi.card.copy_slot("A", "B")
            # Early in the image, so that it is read on the way up; every try ends in a reboot.
            pi.card.flip(pi.card.part_offset("A", "R") + 1024 + 100)

        pi = self.boot("damaged", damage, direct=False, tries=4)
        self.assertRegex(pi.run("cat /proc/cmdline"), r"p2pmesh\.slot=B")
        self.assertRegex(self.status(pi), r"(?i)slot A")
        pi.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
