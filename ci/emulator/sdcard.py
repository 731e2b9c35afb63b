"""An SD card for an emulated Pi: a sparse copy of the image, with the files on its FAT partition changed, and
the parts of its slots read or damaged by tests. The layout is read from the card itself (its partition table
and slot headers), not from the build."""

import os
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "image"))
import envsector  # noqa: E402  (shared with the assembler)

SECTOR = 512
CHUNK = 1 << 20
STATE = (0x2000, 0x4000)


def find_image():
    """The SD-card image to test: $P2PMESH_IMAGE, else the newest in build/deploy."""
    if chosen := os.environ.get("P2PMESH_IMAGE"):
        return Path(chosen)
    images = (Path(__file__).resolve().parents[2] / "build/deploy").glob("p2pmesh-*.img")
    newest = sorted(images, key=lambda path: path.stat().st_mtime)
    if not newest:
        raise FileNotFoundError("no image in build/deploy; make one with ./build.sh image")
    return newest[-1]


class Card:
    """An SD-card image that belongs to one emulated Pi."""

    def __init__(self, path):
        self.path = Path(path)

    @classmethod
    def copy(cls, image, path, size=512 << 20):
        """A sparse copy of `image`, grown to `size` bytes, which QEMU wants to be a power of two."""
        card = cls(path)
        card.path.parent.mkdir(parents=True, exist_ok=True)
        zero = bytes(CHUNK)
        with open(image, "rb") as source, open(card.path, "wb") as target:
            while chunk := source.read(CHUNK):
                if chunk == zero[:len(chunk)]:
                    target.seek(len(chunk), os.SEEK_CUR)
                else:
                    target.write(chunk)
            if source.tell() > size:
                raise ValueError(f"{image} is larger than the card ({source.tell()} > {size} bytes)")
            target.truncate(size)
        return card

    def read(self, offset, length):
        """Bytes of the card."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset, data):
        """Overwrites bytes of the card."""
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def flip(self, offset):
        """Flips one bit of the card."""
        self.write(offset, bytes([self.read(offset, 1)[0] ^ 0x10]))

    def partition(self, number):
        """(offset, length) in bytes of partition 1 to 4."""
        start, count = struct.unpack_from("<II", self.read(446 + 16 * (number - 1), 16), 8)
        return start * SECTOR, count * SECTOR

    def partition_uuid(self, number):
        """The name U-Boot and the kernel give the partition: disk signature and number."""
        return f"{struct.unpack('<I', self.read(440, 4))[0]:08x}-{number:02x}"

    # --- the FAT partition ------------------------------------------------------------------------------

    def _mtools(self, tool, *arguments, data=None):
        command = [tool, "-i", f"{self.path}@@{self.partition(1)[0]}", *arguments]
        result = subprocess.run(command, input=data, capture_output=True, check=False,
                                env=dict(os.environ, MTOOLS_SKIP_CHECK="1"))
        if result.returncode:
            raise OSError(f"{tool} {' '.join(arguments)}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout

    def get_file(self, name):
        """The bytes of a file on the FAT partition."""
        return self._mtools("mtype", f"::{name}")

    def put_file(self, name, data):
        """Creates or replaces a file on the FAT partition."""
        self._mtools("mcopy", "-o", "-", f"::{name}", data=data if isinstance(data, bytes) else data.encode())

    # --- boot state and slots ---------------------------------------------------------------------------

    def states(self):
        """The two copies of the boot state, None where the checksum is wrong."""
        return [envsector.decode(self.read(lba * SECTOR, SECTOR)) for lba in STATE]

    def state(self):
        """The boot state that counts: the newest valid copy."""
        valid = [s for s in self.states() if s]
        return max(valid, key=lambda s: int(s["BS_SEQ"], 16)) if valid else None

    def slot_offset(self, slot):
        """Where slot "A" or "B" begins, in bytes."""
        return self.partition("AB".index(slot) + 2)[0]

    def header(self, slot):
        """The header of a slot, None when it is damaged or empty."""
        return envsector.decode(self.read(self.slot_offset(slot), SECTOR))

    def part_offset(self, slot, letter):
        """Where a part of a slot begins, in bytes: I(nitramfs), K(ernel), R(oot), H(ash tree)."""
        return self.slot_offset(slot) + int(self.header(slot)[f"S_{letter}OFF"], 16) * SECTOR

    def part(self, slot, letter):
        """The bytes of a slot's initramfs (I) or kernel (K)."""
        return self.read(self.part_offset(slot, letter), int(self.header(slot)[f"S_{letter}LEN"], 16))

    def put_slot(self, slot, data):
        """Writes a whole slot (what ci/image's slot.build makes)."""
        self.write(self.slot_offset(slot), data)

    def copy_slot(self, source, target):
        """Makes slot `target` the same as slot `source`, as the update service does."""
        self.write(self.slot_offset(target), self.read(self.slot_offset(source), self.partition("AB".index(source) + 2)[1]))

    def set_state(self, **fields):
        """Replaces both copies of the boot state; see envsector.boot_state."""
        for copy, lba in enumerate(STATE):
            self.write(lba * SECTOR, envsector.boot_state(copy + 1, **fields))
