"""The Ethernet segment and the card, without an emulator: frames are datagrams, so the test is the Pis."""

import os
import re
import socket
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hub import Hub  # noqa: E402
from sdcard import SECTOR, Card  # noqa: E402


class Segment(unittest.TestCase):
    """Who hears whom."""

    def setUp(self):
        self.hub = Hub(seed=7)
        self.addCleanup(self.hub.stop)
        self.ports = {}
        for name in "abc":
            value = self.hub.plug(name)
            port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.addCleanup(port.close)
            port.bind(re.search(r"local\.path=([^,]+)", value)[1])
            port.connect(re.search(r"remote\.path=(.+)$", value)[1])
            port.settimeout(5)
            self.ports[name] = port
        self.hub.start()

    def hears(self, name, frame):
        """The next frame at a port, which must come from somewhere: a marker follows what may be lost."""
        got = self.ports[name].recv(2000)
        self.assertEqual(got, frame, name)

    def test_every_port_hears_every_other_but_not_itself(self):
        self.ports["a"].send(b"one")
        self.hears("b", b"one")
        self.hears("c", b"one")
        self.ports["b"].send(b"two")
        self.hears("a", b"two")  # and not its own "one"
        self.assertEqual(self.hub.frames, {"a": 1, "b": 1, "c": 0})

    def test_a_line_has_hops_and_a_cut_heals(self):
        self.hub.line("a", "b", "c")
        self.ports["a"].send(b"far")
        self.ports["b"].send(b"near")
        self.hears("b", b"far")
        self.hears("c", b"near")
        self.hub.join("a", "c")
        self.ports["a"].send(b"again")
        self.hears("c", b"again")

    def test_a_share_of_the_frames_is_lost_the_same_in_every_run(self):
        self.hub.lose("a", "b", 0.5)
        for number in range(100):
            self.ports["a"].send(b"%d" % number)
            self.hears("c", b"%d" % number)
        self.ports["c"].send(b"end")
        got = 0
        while self.ports["b"].recv(2000) != b"end":
            got += 1
        self.assertTrue(30 < got < 70, got)

    def test_a_pi_that_is_off_disturbs_nobody(self):
        self.ports["b"].close()
        self.ports["a"].send(b"x")
        self.hears("c", b"x")


class SdCard(unittest.TestCase):
    """Copies of an image."""

    def test_a_copy_is_the_image_and_takes_only_the_space_of_its_data(self):
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder, "image")
            with open(image, "wb") as file:
                file.write(os.urandom(SECTOR))
                file.truncate(40 << 20)
                file.seek(30 << 20)
                file.write(b"data")
            card = Card.copy(image, Path(folder, "sub/card"), size=64 << 20)
            self.assertEqual(card.path.stat().st_size, 64 << 20)
            self.assertLess(card.path.stat().st_blocks * 512, 8 << 20)
            self.assertEqual(card.read(0, 40 << 20), image.read_bytes())
            card.flip(30 << 20)
            self.assertEqual(card.read(30 << 20, 4), b"tata")
            with self.assertRaises(ValueError):
                Card.copy(image, Path(folder, "small"), size=16 << 20)


if __name__ == "__main__":
    unittest.main()
