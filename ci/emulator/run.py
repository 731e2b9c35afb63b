#!/usr/bin/env python3
"""usage: ./build.sh run [--nodes N] [--no-build] [--direct] [--fresh] [--line] [--ports P80,P8080,P22]

Builds the image if anything changed, boots emulated Raspberry Pi 3 from it and connects their serial consoles to this terminal
(several: to tmux panes if tmux is there, else the first here and the others to the sockets it names). They share one
Ethernet segment. Ports 80, 8080 and 22 of the first are forwarded to loopback. Ctrl-] ends the emulation.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import console  # noqa: E402
from sdcard import Card, find_image  # noqa: E402
from hub import Hub  # noqa: E402
from pi import Deadline, EmulatedPi  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "build/run"
GUEST, READY = "10.0.2.15", r"p2pmesh: node is ready.*\n"


def three_ports(text):
    """The loopback ports for 80, 8080 and 22."""
    ports = [int(word) if word.isdigit() else 0 for word in text.split(",")]
    if len(ports) != 3 or not all(0 < port < 65536 for port in ports):
        raise argparse.ArgumentTypeError(f"three ports are needed, as 8000,8080,2222; not {text!r}")
    return ports


def parser():
    """The command line."""
    p = argparse.ArgumentParser(usage=__doc__.split("\n", 1)[0].removeprefix("usage: "), description=__doc__.split("\n", 2)[2],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nodes", type=int, default=1, metavar="N", help="how many Pis (default 1)")
    p.add_argument("--no-build", action="store_true", help="boot the newest image in build/deploy as it is")
    p.add_argument("--direct", action="store_true", help="start the kernel directly, without U-Boot: 7 s sooner")
    p.add_argument("--fresh", action="store_true", help="new cards; otherwise those of the last run are used again")
    p.add_argument("--line", action="store_true", help="only neighbours hear each other: pi1 - pi2 - pi3 ...")
    p.add_argument("--ports", type=three_ports, default="8000,8080,2222", metavar="P80,P8080,P22",
                   help="loopback ports for 80, 8080 and 22 of the first Pi (default 8000,8080,2222)")
    p.add_argument("--image", type=Path, help="boot this image; nothing is built")
    p.add_argument("--attach", type=Path, metavar="SOCKET", help="connect this terminal to a console that is running")
    return p


def build():
    """Brings the image up to date; a second where nothing changed. build.sh's set-up named the interpreter."""
    command = [os.environ.get("P2PMESH_PYTHON", sys.executable), str(FOLDER.parents[1] / "ci/provider/build.py")]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("run: the image could not be built (see above); --no-build boots the one that is there")


def make_card(image, name, fresh):
    """The Pi's card in build/run: the one of the last run, or a copy of the image if that is newer."""
    path = FOLDER / f"{name}.img"
    if fresh or not path.exists() or path.stat().st_mtime < image.stat().st_mtime:
        return Card.copy(image, path), True
    return Card(path), False


def forwards(ports):
    """QEMU's user network with the three forwarded ports, and the pairs (loopback port, Pi's port)."""
    pairs = list(zip(ports, (80, 8080, 22)))
    for port, _ in pairs:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SystemExit(f"run: port {port} on loopback is in use ({error.strerror}); choose others with --ports") from error
    rules = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-{GUEST}:{there}" for port, there in pairs)
    return f"user,ipv6=off,{rules}", pairs


def connect_host(server, pairs, hints):
    """Waits until the first Pi is ready, then gives its second network card the address that the forwarded ports lead
    to. A node has no address on that card by itself, so this is typed on its console, behind people's back; then they
    are told where the Pi is. `hints`: further lines for them."""
    pi = server.pi
    try:
        pi.expect(READY, 300)
        server.paused = True
        pi.login()
        # The card may be found a little later than the first one.
        find = f"i=$(grep -l {pi.mac(1)} /sys/class/net/*/address | cut -d/ -f5)"
        pi.run(f"for n in $(seq 60); do {find}; [ -n \"$i\" ] && break; sleep 1; done; "
               f"ip link set $i up && ip addr replace {GUEST}/24 dev $i", 120)
        web, gateway, ssh = (port for port, _ in pairs)
        lines = [f"{pi.name} in a browser on this computer: http://127.0.0.1:{gateway}/ (its port 80: http://127.0.0.1:{web}/)",
                 f"{pi.name} by SSH: ssh -p {ssh} root@127.0.0.1", *hints]
    except (Deadline, AssertionError, OSError) as error:
        lines = [f"no forwarded ports: {str(error).splitlines()[0]}"]
    server.paused = False
    server.say(("\r\n" + "".join(f"run: {line}\r\n" for line in lines)).encode())
    with contextlib.suppress(OSError):
        pi.send("exit\n")   # a new log-in prompt


def console_of(pi):
    """The socket of a Pi's console."""
    return pi.run_folder / f"{pi.name}.console"


def attach_command(pi):
    """What shows the Pi's console in a terminal."""
    return f"{sys.executable} {Path(__file__).resolve()} --attach {console_of(pi)}"


def in_panes(pis):
    """Whether the consoles go to tmux panes."""
    return len(pis) > 1 and sys.stdin.isatty() and shutil.which("tmux") is not None and not os.environ.get("TMUX")


def show(pis):
    """Connects people to the consoles; returns when they leave."""
    if in_panes(pis):
        commands = [attach_command(pi) for pi in pis]
        session = f"p2pmesh-{os.getpid()}"
        subprocess.run(["tmux", "new-session", "-d", "-s", session, commands[0]], check=True)
        for command in commands[1:]:
            subprocess.run(["tmux", "split-window", "-t", session, command], check=True)
            subprocess.run(["tmux", "select-layout", "-t", session, "tiled"], check=True)
        subprocess.run(["tmux", "attach", "-t", session], check=False)
        subprocess.run(["tmux", "kill-session", "-t", session], check=False, stderr=subprocess.DEVNULL)
        return
    print(f"run: {pis[0].name} (Ctrl-] ends the emulation)", flush=True)
    console.attach(console_of(pis[0]))


def main():
    """Command line entry."""
    args = parser().parse_args()
    if args.attach:
        console.attach(args.attach)
        return 0
    if not 1 <= args.nodes <= 16:
        raise SystemExit("run: --nodes takes 1 to 16")
    if not (args.no_build or args.image or os.environ.get("P2PMESH_IMAGE")):
        build()
    try:
        image = args.image or find_image()
    except FileNotFoundError as error:
        raise SystemExit(f"run: {error}") from error
    FOLDER.mkdir(parents=True, exist_ok=True)
    user_network, pairs = forwards(args.ports)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(Hub())
        pis, servers = [], []
        for number in range(1, args.nodes + 1):
            name = f"pi{number}"
            card, new = make_card(image, name, args.fresh)
            networks = [hub.plug(name)] + ([user_network] if number == 1 else [])
            pi = stack.enter_context(EmulatedPi(FOLDER, name, card, networks=networks, direct=args.direct))
            if new:
                pi.prepare()
            servers.append(console.ConsoleServer(pi, console_of(pi)))
            stack.callback(servers[-1].close)
            pis.append(pi)
        if args.line:
            hub.line(*(pi.name for pi in pis))
        for pi in pis:
            pi.start()
        hints = [] if in_panes(pis) else [f"{pi.name}'s console: {attach_command(pi)}" for pi in pis[1:]]
        leave = "Ctrl-] closes a pane, and with the last one the emulation" if in_panes(pis) else "Ctrl-] ends the emulation"
        hints.append(f"log in as root / root; {leave}")
        threading.Thread(target=connect_host, args=(servers[0], pairs, hints), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            show(pis)
    print("run: all Pis are off; their cards and logs stay in build/run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
