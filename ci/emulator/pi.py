"""One emulated Raspberry Pi: QEMU, its SD card, its two serial ports, its network cards.

    with EmulatedPi(folder, "pi1", card) as pi:
        pi.start()
        pi.expect(r"node is ready", 60)
        pi.login()
        print(pi.run("meshctl status"))

Everything the Pi prints goes to folder/pi1.log with a time stamp (seconds since power-on); waiting is always
for a pattern with a deadline, and a deadline that passes shows the log's tail and where the whole log is.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

# Parked virtual processors would burn the host, and QEMU's threads fight for its few cores.
QEMU_CPU = ["-accel", "tcg,thread=single"]
BOARDS = {
    "raspi3b": {"dtb": "bcm2837-rpi-3-b.dtb", "extra": ["-global", "bcm2837.enabled-cpus=1"]},
}
# The kernel must not wait for processors that were never started (a real board uses all of its own), and the
# emulated bcm2835 watchdog must not be armed: it would reset at once.
EMULATION_ARGUMENTS = "maxcpus=1 p2pmesh.emulated=1"
# The registers with the functions of GPIO 40 to 53, and values that make 48 to 53 the SD host's (ALT0).
SD_PINS = ((0x3F200010, 0o44 << 24), (0x3F200014, 0o4444))
# Deadlines are for a quiet machine; on one that has much else to do they may be so many times longer.
SLOW = float(os.environ.get("P2PMESH_SLOW", "1"))


class Deadline(AssertionError):
    """Something did not appear in time, or the emulator ended."""


class EmulatedPi:
    """One Pi. `networks` are the values of QEMU's -netdev without their id (see hub.Hub.plug): eth0, eth1, ..."""

    def __init__(self, folder, name, card, *, networks=(), direct=False, board="raspi3b", arguments="", hostname=None):
        self.folder, self.name, self.card = Path(folder), name, card
        self.networks, self.direct, self.board = list(networks), direct, board
        self.arguments = f"{EMULATION_ARGUMENTS} {arguments}".strip()
        self.hostname = hostname or name
        self.log_path = self.folder / f"{name}.log"
        self.folder.mkdir(parents=True, exist_ok=True)
        # Socket paths are limited to 107 bytes, so they live neither in the folder nor below a long TMPDIR.
        self.run_folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
        self.process, self.powered = None, 0.0
        self._stood, self._frozen = 0.0, None  # seconds that it was frozen; since when it is
        self._log = open(self.log_path, "a", encoding="utf-8")  # noqa: SIM115  (closed in close)
        self._lock = threading.Condition()
        self._text = ""      # all the console said since power-on
        self._position = 0   # how far expect() has read
        self._marks = []     # (length of _text, seconds since power-on) at each arrival
        self._console = None
        self._threads = []
        self.sticks = {}     # {name: file} of the USB sticks in it, see plug
        self.tap = None      # called with every piece of console output, for a terminal
        self._resumes = False  # it starts in a state that is still to come
        self.record = None   # a file for the log of all that is written to the card (QEMU's blklogwrites)

    # --- power ------------------------------------------------------------------------------------------

    def prepare(self, toml=None):
        """Writes what the emulation needs to the card's FAT partition: kernel arguments and a host name, since
        all emulated boards have the same serial number."""
        self.card.put_file("boot-extra.txt", f"bootargs_extra={self.arguments}\n")
        self.card.put_file("p2pmesh.toml", toml if toml is not None else f'hostname = "{self.hostname}"\n')

    def command(self):
        """The QEMU command line."""
        board = BOARDS[self.board]
        command = ["qemu-system-aarch64", "-M", self.board, *QEMU_CPU, *board["extra"], "-display", "none", "-monitor", "none",
                   "-drive", f"if=sd,{self._drive()}",
                   "-dtb", self._extract(board["dtb"], lambda: self.card.get_file(board["dtb"]))]
        if self.direct:
            command += ["-kernel", self._extract("kernel", lambda: self.card.part("A", "K")),
                        "-initrd", self._extract("initramfs", lambda: self.card.part("A", "I")), "-append", self._kernel_line()]
        else:
            command += ["-kernel", self._extract("u-boot.bin", lambda: self.card.get_file("u-boot.bin"))]
        for number, network in enumerate(self.networks):
            command += ["-netdev", f"{network},id=net{number}", "-device", f"usb-net,netdev=net{number},mac={self.mac(number)}"]
        for name, file in self.sticks.items():
            command += ["-blockdev", json.dumps(self._stick(name, file)), "-device", f"usb-storage,id={name},drive=disk-{name}"]
        if self._resumes:
            command += ["-incoming", "defer", "-gdb", f"unix:{self.run_folder}/gdb,server=on,wait=off"]
        return [*command, "-qmp", f"unix:{self.run_folder}/qmp,server=on,wait=off"]

    # --- USB sticks -------------------------------------------------------------------------------------

    @staticmethod
    def _stick(name, file):
        """QEMU's description of a stick's medium."""
        return {"driver": "raw", "node-name": f"disk-{name}", "cache": {"no-flush": True},
                "file": {"driver": "file", "filename": str(file), "cache": {"no-flush": True}}}

    def plug(self, name, file):
        """Plugs a USB stick in: a file with its content. When the Pi is off, it is there at the next power-on. While it is on that
        works once: the emulated controller does not get over a second stick after one was pulled."""
        self.sticks[name] = file
        if self.process is not None:
            self._ask_qemu(("blockdev-add", self._stick(name, file)),
                           ("device_add", {"driver": "usb-storage", "id": name, "drive": f"disk-{name}"}))

    def unplug(self, name):
        """Pulls a USB stick out."""
        del self.sticks[name]
        if self.process is not None:
            self._ask_qemu(("device_del", {"id": name}), ("blockdev-del", {"node-name": f"disk-{name}"}))

    def _ask_qemu(self, *commands):
        """Runs commands of QEMU's machine protocol, each after the one before has ended; returns the answers."""
        answers = []
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30 * SLOW)
            connection.connect(f"{self.run_folder}/qmp")
            with connection.makefile("rw", encoding="utf-8") as lines:
                for name, arguments in (("qmp_capabilities", {}), *commands):
                    lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                    lines.flush()
                    # A device is gone when the event says so, which comes before or after the answer.
                    wanted = {"return", "DEVICE_DELETED"} if name == "device_del" else {"return"}
                    while wanted:
                        answer = json.loads(lines.readline() or '{"error": "it ended"}')
                        if "error" in answer:
                            raise RuntimeError(f"{self.name}: {name} {arguments}: {answer['error']}")
                        wanted -= {answer.get("event"), *answer}
                        if "return" in answer:
                            answers.append(answer["return"])
        return answers

    # --- the same moment several times ------------------------------------------------------------------

    @contextlib.contextmanager
    def frozen(self):
        """The machine stands still while this lasts, its clocks, too, and no deadline comes nearer. What is on its card is what a plug
        pulled now would leave."""
        self._ask_qemu(("stop", {}))
        self._frozen = time.monotonic()
        try:
            yield
        finally:
            self._stood, self._frozen = self._stood + time.monotonic() - self._frozen, None
            self._ask_qemu(("cont", {}))

    def clock(self):
        """Seconds since power-on, without those in which it was frozen."""
        return (self._frozen or time.monotonic()) - self.powered - self._stood

    def save(self, path):
        """Writes what a frozen machine holds in memory and devices to a file; its card is to be copied meanwhile. It can have
        no network."""
        self._ask_qemu(("migrate-set-parameters", {"max-bandwidth": 1 << 40}), ("migrate", {"uri": f"file:{path}"}))
        self._until("query-migrate", "active", "setup", "device", "pre-switchover")
        if (found := self._ask_qemu(("query-migrate", {}))[1]["status"]) != "completed":
            raise RuntimeError(f"{self.name}: its state can't be saved: {found}")

    def resume(self, path):
        """Goes on in the state that `save` wrote, with the card as it was then."""
        self._resumes = True
        try:
            self.start()
        finally:
            self._resumes = False
        self._ask_qemu(("query-status", {}))  # it answers when all its sockets are there
        self._connect_card()
        self._ask_qemu(("migrate-incoming", {"uri": f"file:{path}"}))
        self._until("query-status", "inmigrate")
        self._ask_qemu(("cont", {}))
        return self

    def _connect_card(self):
        """Connects the card to the controller that it is connected to while U-Boot and Linux run. QEMU does that when the functions
        of these pins are chosen, not when it loads a state in which they are."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30 * SLOW)
            connection.connect(f"{self.run_folder}/gdb")
            words = ["Qqemu.PhyMemMode:1", *(f"M{register:x},4:{functions.to_bytes(4, 'little').hex()}" for register, functions in SD_PINS)]
            for word in words:
                connection.sendall(f"${word}#{sum(word.encode()) % 256:02x}".encode())
                answer = b""
                while not answer.endswith(b"$OK#9a"):
                    if not (more := connection.recv(100)) or answer.count(b"#"):
                        raise RuntimeError(f"{self.name}: its card can't be connected: {answer}")
                    answer += more
                connection.sendall(b"+")

    def _until(self, question, *states):
        """Waits until QEMU's answer is none of these states any more."""
        end = time.monotonic() + 60 * SLOW
        while self._ask_qemu((question, {}))[1]["status"] in states:
            if time.monotonic() > end:
                raise Deadline(f"{self.name}: {question} stays {states}")
            time.sleep(0.02)

    def _drive(self):
        """QEMU's options of the card."""
        if self.record is None:
            return f"file={self.card.path},format=raw,cache=unsafe"
        Path(self.record).touch()
        sides = (("file", self.card.path), ("log", self.record))
        return "driver=blklogwrites,cache=unsafe,log-append=off," + ",".join(
            f"{side}.driver=raw,{side}.file.driver=file,{side}.file.filename={path}" for side, path in sides)

    def _kernel_line(self):
        """The kernel's command line for slot A, as the card's boot script makes it."""
        header, script = self.card.header("A"), self.card.get_file("boot.scr").decode(errors="replace")
        line = re.search(r'setenv bootargs "(.*)"', script).group(1)
        values = {"pick": "A", "partition": self.card.partition_uuid(2), "bootargs_extra": self.arguments, **header}
        return re.sub(r"\$\{(\w+)\}", lambda found: values[found.group(1)], line)

    def mac(self, number):
        """The address of network card `number`, from the Pi's name. QEMU's usb-net shows 40 as the first byte, whatever
        it is told."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return f"40:54:{number:02x}:" + digest[:3].hex(":")

    def _extract(self, name, read):
        path = self.run_folder / name
        path.write_bytes(read())
        return str(path)

    def start(self):
        """Power on."""
        if self.process is not None:
            raise RuntimeError(f"{self.name} is already on")
        command, listeners = self.command(), []
        for port in (0, 1):
            path = self.run_folder / f"uart{port}"
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(30)
            listeners.append(listener)
            command += ["-serial", f"unix:{path}"]
        with self._lock:
            self._text, self._position, self._marks = "", 0, []
        self.powered, self._stood = time.monotonic(), 0.0
        self._write_log("power", "on: " + " ".join(command))
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._threads = [threading.Thread(target=self._read_emulator, args=(self.process.stdout,), daemon=True)]
        for port, listener in enumerate(listeners):
            try:
                connection, _ = listener.accept()
            except TimeoutError as error:
                self.kill()
                raise Deadline(f"QEMU did not start: {self.tail()}") from error
            finally:
                listener.close()
            # The mini UART is U-Boot's and the board's console; the PL011 shows U-Boot's first lines.
            if port == 1:
                self._console = connection
            self._threads.append(threading.Thread(target=self._read_port, args=(port, connection), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def kill(self):
        """Pulls the plug: nothing is written any more, nothing is shut down."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._write_log("power", "off")
            process, self.process = self.process, None
            for thread in self._threads:
                thread.join(5)
            process.stdout.close()

    def restart(self):
        """Pulls the plug and plugs it in again, with the same card."""
        self.kill()
        return self.start()

    def close(self):
        """Power off and clean up; the card and the log stay."""
        self.kill()
        self._log.close()
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- console ----------------------------------------------------------------------------------------

    def _write_log(self, source, line):
        if not self._log.closed:
            self._log.write(f"{time.monotonic() - self.powered:9.3f} {source:7} {line}\n")
            self._log.flush()

    def _read_emulator(self, output):
        for line in output:
            self._write_log("qemu", line.decode(errors="replace").rstrip())

    def _read_port(self, port, connection):
        pending, source = "", ("uart0", "console")[port]
        while True:
            try:
                data = connection.recv(4096)
            except OSError:
                data = b""
            if not data:
                break
            if port == 1 and self.tap:
                self.tap(data)
            text = data.decode("utf-8", "replace").replace("\r", "")
            now = self.clock()
            with self._lock:
                pending += text
                *lines, pending = pending.split("\n")
                for line in lines:
                    self._write_log(source, line)
                if port == 1:
                    self._text += text
                    self._marks.append((len(self._text), now))
                    self._lock.notify_all()
        if pending:
            self._write_log(source, pending)
        connection.close()
        with self._lock:
            self._lock.notify_all()

    def tail(self, count=40):
        """The end of the log, for people."""
        lines = self.log_path.read_text(errors="replace").splitlines()[-count:]
        return "\n".join([f"--- the last lines of {self.log_path} ---", *lines])

    def expect(self, pattern, deadline):
        """Waits until the console says `pattern` (a regular expression), at most `deadline` seconds, and returns
        the match. What came before is behind us: the next call looks only at what follows."""
        compiled, end = re.compile(pattern, re.M), self.clock() + deadline * SLOW
        with self._lock:
            while True:
                if found := compiled.search(self._text, self._position):
                    self._position = found.end()
                    return found
                if self.process is None or self.process.poll() is not None:
                    raise Deadline(f"{self.name}: the emulator ended while waiting for '{pattern}'\n{self.tail()}")
                if (left := end - self.clock()) <= 0:
                    raise Deadline(f"{self.name}: no '{pattern}' within {deadline} s\n{self.tail()}")
                self._lock.wait(min(left, 0.5))

    def seen(self, pattern):
        """Whether the console has said `pattern` since power-on."""
        with self._lock:
            return re.search(pattern, self._text, re.M) is not None

    def time_of(self, pattern):
        """Seconds from power-on to the first `pattern`, or None."""
        with self._lock:
            found = re.search(pattern, self._text, re.M)
            return found and next(when for length, when in self._marks if length >= found.end())

    def send(self, text):
        """Types `text` on the serial console."""
        self._console.sendall(text.encode())

    def login(self, user="root", password="root", deadline=60):
        """Logs in on the serial console."""
        self.send("\n")
        self.expect(r"login: ", deadline)
        self.send(f"{user}\n")
        self.expect(r"assword: ", 15)
        self.send(f"{password}\n")
        self.expect(r"[#$] (?:\x1b\[6n)?$", 30)  # busybox asks the terminal where its cursor is
        # A prompt that no output can be taken for, and no echo of what is typed.
        self.send("PS1='pi''> '; stty -echo 2>/dev/null\n")
        self.expect(r"^pi> ", 10)

    def run(self, command, deadline=30, check=True):
        """Runs a shell command on the console after login() and returns what it printed. With `check`, an exit
        code other than 0 is an error."""
        self.send(f"{command}; echo \"[rc\"\"=$?]\"\n")
        with self._lock:
            start = self._position
        found = self.expect(r"\[rc=(\d+)\]\n(.*\n)*?pi> ", deadline)
        with self._lock:
            output = self._text[start:found.start()]
        if check and found.group(1) != "0":
            raise AssertionError(f"{self.name}: '{command}' ended with {found.group(1)}:\n{output}")
        return output.strip("\n")
