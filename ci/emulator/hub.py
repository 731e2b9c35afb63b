"""An Ethernet segment between emulated Pis: every frame of one reaches those it is linked to.

    hub = Hub()
    a, b = EmulatedPi(..., networks=[hub.plug("a")]), EmulatedPi(..., networks=[hub.plug("b")])
    hub.start()
    hub.cut("a", "b")

Frames are datagrams on Unix sockets (QEMU's -netdev dgram), so no privileges and no host network are needed.
"""

import os
import random
import selectors
import shutil
import socket
import tempfile
import threading
from pathlib import Path

MAX_FRAME = 65536


class Hub:
    """A segment with any number of ports. Without links of its own every port hears every other."""

    def __init__(self, seed=1):
        self.folder = Path(tempfile.mkdtemp(prefix="hub-", dir="/tmp"))  # short: socket paths have at most 107 bytes
        self._ports, self._loss, self._down = {}, {}, set()
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._thread = None
        self.frames, self.bytes = {}, {}  # {port name: what has entered there}
        self.listeners = []  # called with (port name, frame) for every frame that enters

    def plug(self, name):
        """A new port; returns the -netdev value for the Pi that is plugged into it."""
        ours, theirs = self.folder / f"{name}.hub", self.folder / f"{name}.pi"
        port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        port.bind(str(ours))
        port.setblocking(False)
        with self._lock:
            self._ports[name] = (port, str(theirs))
            self.frames[name] = self.bytes[name] = 0
            self._selector.register(port, selectors.EVENT_READ, name)
        self._wake()
        return f"dgram,local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"

    def cut(self, a, b):
        """No frame passes between two ports any more, in either direction."""
        with self._lock:
            self._down |= {(a, b), (b, a)}

    def join(self, a, b):
        """Frames pass between two ports again."""
        with self._lock:
            self._down -= {(a, b), (b, a)}

    def line(self, *names):
        """Only neighbours in this order hear each other: a topology with hops."""
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if i < j:
                    (self.join if j == i + 1 else self.cut)(a, b)

    def lose(self, a, b, share):
        """This share (0 to 1) of the frames from a to b is lost."""
        with self._lock:
            self._loss[(a, b)] = share

    def start(self):
        """Begins to carry frames."""
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        """Ends the segment."""
        thread, self._thread = self._thread, None
        self._wake()
        if thread:
            thread.join(5)
        for port, _ in self._ports.values():
            port.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _wake(self):
        os.write(self._wake_write, b"x")

    def _carry(self):
        while self._thread is not None:
            for key, _ in self._selector.select(1):
                if key.data is None:
                    os.read(self._wake_read, 1)
                    continue
                try:
                    frame = key.fileobj.recv(MAX_FRAME)
                except OSError:
                    continue
                self._forward(key.data, frame)

    def _forward(self, source, frame):
        with self._lock:
            self.frames[source] += 1
            self.bytes[source] += len(frame)
            targets = [port for name, port in self._ports.items()
                       if name != source and (source, name) not in self._down
                       and self._random.random() >= self._loss.get((source, name), 0)]
        for listener in self.listeners:
            listener(source, frame)
        for port, path in targets:
            try:
                port.sendto(frame, path)
            except OSError:
                pass  # switched off, or its queue is full: Ethernet promises nothing
