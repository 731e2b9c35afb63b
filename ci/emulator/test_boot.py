"""The boot chain on the emulated Pi 3: boot script, slots, boot state, /init, dm-verity.

BootScript runs U-Boot only, on a card whose slots are tiny (a kernel that can't be started, so that U-Boot itself
shows what happens after a failed try); each case takes two to ten seconds. WholeBoot runs the image's own kernel.
Without an image in build/deploy everything here is skipped, and says so.
"""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sdcard import SECTOR, STATE, Card, find_image  # noqa: E402
from pi import BOARDS, EmulatedPi  # noqa: E402
import slot  # noqa: E402  (of ci/image; sdcard.py made it reachable)

NO_SLOT = "NO SLOT CAN BE BOOTED"


def tiny_slot(version):
    """A slot that passes every check of the boot script, with a kernel that is none."""
    return slot.build(version, b"initramfs " * 500, b"kernel " * 500, b"root" * 1024)[0]


class OnePi(unittest.TestCase):
    """A card and a Pi for each test; the log stays in build/test-logs."""

    def setUp(self):
        try:
            self.image = find_image()
        except FileNotFoundError as error:
            self.skipTest(str(error))
        self.logs = Path(__file__).resolve().parents[2] / "build/test-logs" / self.id().split(".", 1)[-1]
        shutil.rmtree(self.logs, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix="test-boot-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def pi(self, card, arguments=""):
        """A Pi with this card, not switched on yet."""
        pi = EmulatedPi(self.logs, "pi1", card, arguments=arguments)
        self.addCleanup(pi.close)
        pi.prepare()
        return pi


class BootScript(OnePi):
    """Slot choice, counters and boot state, decided by U-Boot alone."""

    def card(self, a="1.0", b="0.9", **state):
        """A card with tiny slots of these versions (None: empty) and this boot state."""
        card = Card.copy(self.image, self.folder / "card.img", size=256 << 20)
        for letter, version in (("A", a), ("B", b)):
            card.put_slot(letter, tiny_slot(version) if version else bytes(1 << 20))
        card.set_state(**state)
        return card

    def test_a_try_is_counted_before_the_slot_runs(self):
        card = self.card()
        pi = self.pi(card).start()
        pi.expect(r"tries left A=3 B=3", 20)
        pi.expect(r"booting slot A, version 1\.0", 10)
        pi.kill()
        self.assertEqual(card.state(), {"BS_SEQ": "3", "BOOT_ORDER": "A B", "BOOT_A_LEFT": "2", "BOOT_B_LEFT": "3"})
        self.assertEqual(card.states()[1]["BS_SEQ"], "2", "the newer copy is kept, the older one is written")

    def test_three_failed_tries_fall_back_to_the_other_slot(self):
        card = self.card()
        pi = self.pi(card).start()
        for left in (3, 2, 1):
            pi.expect(rf"tries left A={left} B=3", 20)
            pi.expect(r"booting slot A", 10)
        pi.expect(r"slot A has no tries left", 20)
        pi.expect(r"booting slot B, version 0\.9", 10)

    def test_the_order_decides_which_slot_is_first(self):
        pi = self.pi(self.card(order="B A")).start()
        pi.expect(r"booting slot B", 20)

    def test_both_state_sectors_garbage_mean_defaults(self):
        card = self.card()
        for lba in STATE:
            card.write(lba * SECTOR, b"\xa5" * SECTOR)
        pi = self.pi(card).start()
        pi.expect(r"both boot-state sectors are unreadable", 20)
        pi.expect(r"booting slot A", 10)
        pi.kill()
        self.assertEqual(card.state()["BOOT_A_LEFT"], "2")

    def test_a_torn_state_write_leaves_the_other_copy_in_charge(self):
        for torn in (0, 1):
            with self.subTest(torn=torn):
                card = self.card(order="B A", b_left=2)
                card.flip(STATE[torn] * SECTOR + 30)
                pi = self.pi(card).start()
                pi.expect(r"order B A, tries left A=3 B=2", 20)
                pi.expect(r"booting slot B", 10)
                pi.kill()
                self.assertEqual(card.states()[torn]["BOOT_B_LEFT"], "1", "the damaged copy is the one that is replaced")

    def test_a_damaged_slot_goes_to_the_other_at_once(self):
        damages = {
            "header is damaged or empty": lambda card: card.write(card.slot_offset("A"), bytes(SECTOR)),
            "header is damaged": lambda card: card.flip(card.slot_offset("A") + 100),
            "kernel fails its checksum": lambda card: card.flip(card.part_offset("A", "K") + 1000),
            "initramfs fails its checksum": lambda card: card.flip(card.part_offset("A", "I") + 1000),
        }
        for message, damage in damages.items():
            with self.subTest(message):
                card = self.card()
                damage(card)
                pi = self.pi(card).start()
                pi.expect(rf"slot A is not bootable: its {message}", 20)
                pi.expect(r"booting slot B", 10)
                pi.kill()
                self.assertEqual(card.state()["BOOT_A_LEFT"], "0", "a damaged slot is not tried again")

    def test_a_header_without_a_field_is_refused(self):
        card = self.card()
        header = {k: v for k, v in card.header("A").items() if k != "S_KCRC"}
        card.write(card.slot_offset("A"), slot.envsector.encode(header))
        pi = self.pi(card).start()
        pi.expect(r"slot A is not bootable: its header is incomplete", 20)
        pi.expect(r"booting slot B", 10)

    def test_no_good_slot_is_said_clearly_and_refills_the_tries(self):
        card = self.card(a=None, b=None)
        pi = self.pi(card).start()
        pi.expect(NO_SLOT, 20)
        pi.expect(r"flash it again", 5)
        pi.expect(r"tries left A=3 B=3", 30)

    def test_the_board_s_own_timer_runs_before_the_kernel_starts(self):
        # Where the firmware has left a serial number. QEMU's timer fires as soon as it is set: the kernel's turn never comes.
        card = self.card()
        tree = self.folder / "tree.dtb"
        tree.write_bytes(card.get_file(BOARDS["raspi3b"]["dtb"]))
        subprocess.run(["fdtput", "-t", "s", tree, "/", "serial-number", "00000000c0ffee00"], check=True)
        card.put_file(BOARDS["raspi3b"]["dtb"], tree.read_bytes())
        pi = self.pi(card).start()
        pi.expect(r"booting slot A", 20)
        pi.expect(r"tries left A=2 B=3", 20)
        self.assertFalse(pi.seen("could not be started"), "the timer was not set")

    def test_a_person_can_stop_at_the_prompt(self):
        card = self.card()
        card.put_file("uboot-prompt", "")
        pi = self.pi(card).start()
        pi.expect(r"stopped, because the card holds a file uboot-prompt", 20)
        pi.send("\necho at the prompt\n")
        pi.expect(r"^at the prompt", 10)


class WholeBoot(OnePi):
    """The image's own kernel and root, through U-Boot."""

    def card(self):
        """A copy of the image."""
        return Card.copy(self.image, self.folder / "card.img", size=256 << 20)

    def test_slot_b_boots_as_slot_a_does(self):
        card = self.card()
        card.copy_slot("A", "B")
        card.set_state(order="B A")
        pi = self.pi(card).start()
        pi.expect(r"booting slot B", 60)
        pi.expect(r"slot B version \S+: root verified and mounted", 60)

    def test_flipped_bytes_in_the_root_image_fall_back(self):
        card = self.card()
        card.copy_slot("A", "B")
        card.set_state(a_left=1)
        # The first block holds the file system's superblock, which the mount reads; dm-verity checks whole blocks.
        card.flip(card.part_offset("A", "R") + 2000)
        pi = self.pi(card).start()
        pi.expect(r"booting slot A", 60)
        pi.expect(r"slot A has no tries left", 60)
        pi.expect(r"slot B version \S+: root verified and mounted", 90)

    def test_flipped_bytes_in_the_verity_tree_fall_back(self):
        card = self.card()
        # The block after the superblock is the top of the tree: every read needs it.
        card.flip(card.part_offset("A", "H") + 4096 + 5)
        card.set_state(a_left=1, b_left=0)
        pi = self.pi(card).start()
        pi.expect(r"booting slot A", 60)
        pi.expect(NO_SLOT, 60)
        self.assertFalse(pi.seen("root verified"))

    def test_the_watchdog_restarts_a_board_that_does_not_come_up(self):
        # No boot takes less than a second, so each one counts as hung before the supervisor is there.
        card = self.card()
        card.set_state()
        pi = self.pi(card, "p2pmesh.watchdog=1").start()
        pi.expect(r"tries left A=3 B=3", 60)
        pi.expect(r"softdog: Initiating system reboot", 60)
        pi.expect(r"tries left A=2 B=3", 60)


if __name__ == "__main__":
    unittest.main()
