"""An emulated Pi that is updated by bundles: a good one, ones that are refused, ones that fail each in a way of their own,
and one whose installation is cut off by a pulled plug. Serial logs stay in build/test-logs/Updates/."""

import hashlib
import random
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ci/emulator"))
from pi import EMULATION_ARGUMENTS  # noqa: E402
from test_pis import APPLY, BOOT, Pis, identity, until  # noqa: E402
import systems  # noqa: E402


class Updates(Pis):
    """One node; the tests follow each other."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pi = cls.make("updated", size=1 << 30)
        cls.systems = systems.Systems(cls.pi.card, cls.folder)
        cls.pi.card.put_file("p2pmesh.toml", cls.systems.toml("updated"))
        for name, (data, _) in cls.bad_ones().items():
            cls.pi.card.put_file(f"{name}.bundle", data)
        cls.put(cls.systems.bundle("good", cls.systems.own(S_VER="2.0-test"), release=10))

    @classmethod
    def bad_ones(cls):
        """{name: (bundle, what is said of it)}: those that are refused before anything is written."""
        made, tiny = cls.systems.bundle, systems.tiny()
        good = made("small", tiny, release=10).read_bytes()
        signature = 16 + int.from_bytes(good[8:12], "little") + 32

        def flipped(at):
            return good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]

        return {
            "few": (made("few", tiny, release=10, keys=(1,)).read_bytes(), r"not enough signatures: 2 .* 1 did"),
            "unsigned": (made("unsigned", tiny, release=10, keys=()).read_bytes(), r"not enough signatures: 2 .* 0 did"),
            "wrong": (flipped(signature), r"wrong signature"),
            "flipped": (flipped(40), r"wrong signature"),
            "board": (made("board", tiny, release=10, board="brcm,bcm2712").read_bytes(), r"wrong board: it is for brcm,bcm2712"),
            "cut": (good[:-100], r"truncated"),
            "long": (good + b"x", r"oversize"),
            "large": (made("large", systems.oversize(), release=10).read_bytes(), r"oversize: the system needs"),
            "text": (b"hello, this is no bundle at all\n" * 20, r"no update bundle"),
            # These are found when their chunk comes: the other slot is erased by then.
            "bomb": (made("bomb", tiny, release=10, change=systems.bomb).read_bytes(), r"bomb|unpacks to more"),
            "chunk": (flipped(len(good) - 10), r"damaged: chunk"),
        }

    @classmethod
    def put(cls, bundle, more=""):
        """Pulls the plug, puts a bundle on the card's FAT partition, and powers on. `more`: arguments of the kernel."""
        cls.pi.kill()
        cls.pi.card.put_file("x.bundle", bundle.read_bytes())
        cls.pi.card.put_file("boot-extra.txt", f"bootargs_extra={EMULATION_ARGUMENTS} {more}\n")
        cls.pi.start()

    def confirmed(self, version):
        self.ready(self.pi)
        until(self.pi, "meshctl update status", rf"{version} .*running, confirmed", 120)

    def apply(self, name="x"):
        return self.pi.run(f"meshctl update apply /boot/{name}.bundle 2>&1", APPLY, check=False)

    def digest(self):
        """Of both slots and both copies of the boot state."""
        card = self.pi.card
        slots = b"".join(card.read(*card.partition(n)) for n in (2, 3))
        return hashlib.sha256(slots).hexdigest(), card.states()

    def test_1_bad_bundles_are_refused_and_the_node_is_as_it_was(self):
        self.confirmed(self.systems.start["S_VER"])
        before = self.digest()
        for name, (_, reason) in self.bad_ones().items():
            with self.subTest(name):
                self.assertRegex(self.apply(name), reason)
                if name not in ("bomb", "chunk"):
                    self.assertEqual(self.digest(), before)
        # The system that runs is the one that boots, whole.
        state, card = self.pi.card.state(), self.pi.card
        self.assertEqual((state["BOOT_ORDER"], state["BOOT_A_LEFT"]), ("A B", "3"))
        self.assertEqual(card.header("A"), self.systems.start)
        self.assertIsNone(card.header("B"))

    def test_2_a_good_bundle_is_installed_tried_and_confirmed(self):
        self.assertRegex(self.apply(), r"version 2\.0-test \(release 10\) is in slot B")
        self.pi.send("reboot\n")
        self.pi.expect(r"booting slot B, version 2\.0-test", BOOT)
        self.confirmed(r"B +2\.0-test")
        self.assertRegex(self.pi.run("meshctl update status --json"), r'"floor": 10')

    def test_3_an_older_one_is_refused_now(self):
        old = self.systems.bundle("old", systems.tiny(), release=9)
        self.put(old)
        self.confirmed(r"B +2\.0-test")
        self.assertRegex(self.apply(), r"downgrade: it is release 9")

    def fails(self, version, release, bundle, more, tries, seen, why):
        """Installs a bundle, cuts power before the node is restarted, and lets it fail `tries` times."""
        self.put(bundle)
        self.confirmed(r"B +2\.0-test")
        self.assertRegex(self.apply(), rf"version {version} \(release {release}\) is in slot A")
        self.pi.kill()
        self.assertEqual(self.pi.card.state()["BOOT_ORDER"], "A B")
        if tries < 3:
            self.pi.card.set_state(order="A B", a_left=tries, b_left=3)
        self.pi.card.put_file("boot-extra.txt", f"bootargs_extra={EMULATION_ARGUMENTS} {more}\n")
        self.pi.start()
        for _ in range(tries):
            self.pi.expect(rf"booting slot A, version {version}", BOOT)
        self.pi.expect(r"booting slot B, version 2\.0-test", 300)
        self.assertTrue(self.pi.seen(seen), f"{seen}\n{self.pi.tail()}")
        self.confirmed(r"B +2\.0-test")
        self.assertRegex(self.pi.run("meshctl update status"), rf"went back from version {version} in slot A: .*{why}")

    def test_4_a_kernel_that_panics_is_left_after_three_tries(self):
        data = self.systems.changed("3.0-panic", self.systems.inittab("echo c > /proc/sysrq-trigger"))
        bundle = self.systems.bundle("panic", data, release=11)
        self.fails("3.0-panic", 11, bundle, "panic=3", 3, r"Kernel panic - not syncing", "it never came as far")

    def test_5_an_init_that_hangs_is_ended_by_the_watchdog(self):
        data = self.systems.changed("3.1-hangs", self.systems.inittab("sleep 1000000"))
        bundle = self.systems.bundle("hangs", data, release=12)
        self.fails("3.1-hangs", 12, bundle, "p2pmesh.watchdog=60", 1, r"softdog: Initiating system reboot", "it never came as far")

    def test_6_a_router_that_never_starts_is_noticed_by_the_health_gate(self):
        data = self.systems.changed("3.2-router", {"usr/sbin/mesh-router": b"#!/bin/sh\nexec sleep 1000000\n"})
        bundle = self.systems.bundle("router", data, release=13)
        self.fails("3.2-router", 13, bundle, "p2pmesh.patience=20", 1, r"slot A version 3\.2-router: root verified",
                   "it waited for: mesh-router: it is not running")

    def test_7_a_supervisor_that_stops_on_trial_is_ended_by_the_watchdog(self):
        words = "until [ -S /run/p2pmesh/mesh-store.sock ]; do sleep 1; done; kill -STOP $(pidof mesh-supervisor)"
        data = self.systems.changed("3.3-stops", self.systems.inittab(f"sh -c '{words}' >/dev/null 2>&1 &"))
        bundle = self.systems.bundle("stops", data, release=14)
        self.fails("3.3-stops", 14, bundle, "", 1, r"softdog: Initiating system reboot", "it waited for: mesh-supervisor")

    def test_8_pulled_plugs_during_an_installation(self):
        before = identity(self.pi)
        self.put(self.systems.bundle("cut", self.systems.own(S_VER="4.0-cut"), release=15))
        self.confirmed(r"2\.0-test")
        chance = random.Random(7)
        for cut in range(2):
            with self.subTest(cut=cut):
                self.pi.send("meshctl update apply /boot/x.bundle\n")
                # Anywhere in the installation: it takes about that long on a quiet host.
                end = time.monotonic() + chance.random() * 40
                while time.monotonic() < end:
                    time.sleep(0.05)
                self.pi.restart()
                self.pi.expect(r"booting slot (B|A), version (2\.0-test|4\.0-cut)", BOOT)
                self.confirmed(r"(2\.0-test|4\.0-cut)")
        self.assertRegex(self.apply(), r"version 4\.0-cut \(release 15\) is in slot")
        self.assertEqual(identity(self.pi), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
