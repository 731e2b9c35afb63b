"""A Pi's serial console for people: on a socket that terminals attach to, and in this terminal."""

import contextlib
import os
import select
import socket
import sys
import termios
import threading
import tty
from pathlib import Path

# Ctrl-], as in telnet.
LEAVE = 0x1D
REPLAY = 16384


class ConsoleServer:
    """Shows everything a Pi prints to every attached terminal, and types what they type."""

    def __init__(self, pi, path):
        self.pi, self.path = pi, Path(path)
        self.paused = False   # while the program itself works on the console: nothing is shown, nothing typed
        self._clients, self._recent, self._lock = [], b"", threading.Lock()
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(4)
        pi.tap = self._show
        threading.Thread(target=self._accept, daemon=True).start()

    def _show(self, data):
        if not self.paused:
            self.say(data)

    def say(self, data):
        """Shows `data` (bytes) as if the Pi had printed it."""
        with self._lock:
            self._recent = (self._recent + data)[-REPLAY:]
            for client in list(self._clients):
                try:
                    client.sendall(data)
                except OSError:
                    self._clients.remove(client)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                with contextlib.suppress(OSError):
                    client.sendall(self._recent)
                self._clients.append(client)
            threading.Thread(target=self._type, args=(client,), daemon=True).start()

    def _type(self, client):
        with contextlib.suppress(OSError):
            while data := client.recv(1024):
                if not self.paused:
                    self.pi.send(data.decode("latin-1"))
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)
        client.close()

    def close(self):
        """Detaches everyone."""
        self._listener.close()
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def raw_terminal():
    """The terminal passes every key on while this lasts; without a terminal, nothing happens."""
    if not sys.stdin.isatty():
        yield
        return
    saved = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def attach(path):
    """Connects this terminal to a console until Ctrl-] or until the Pi goes away."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(path))
    inputs = [server, sys.stdin] if sys.stdin.isatty() else [server]
    with raw_terminal():
        while True:
            for ready in select.select(inputs, [], [])[0]:
                if ready is server:
                    data = server.recv(4096)
                    if not data:
                        return
                    os.write(sys.stdout.fileno(), data)
                else:
                    data = os.read(sys.stdin.fileno(), 1024)
                    if not data or LEAVE in data:
                        return
                    server.sendall(data)
