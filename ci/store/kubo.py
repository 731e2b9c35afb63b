"""CIDs by kubo's shared library: `kubo.py LIBRARY REPO`. Standard input: one path a line; standard output: its CID.

Kubo runs offline: the repository is private, without bootstrap nodes, routing, listeners and discovery.
"""

import ctypes
import json
import sys
from pathlib import Path


def repository(library, folder):
    """Makes the repository and takes everything out of its configuration that would touch a network."""
    library.CreateRepo(str(folder).encode())
    path = folder / "config"
    config = json.loads(path.read_text())
    config["Bootstrap"] = []
    config["Routing"] = {"Type": "none"}
    config["Addresses"].update(Swarm=[], API=[], Gateway=[])
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    path.write_text(json.dumps(config))


def main():
    """Answers line by line."""
    library = ctypes.CDLL(sys.argv[1])
    library.AddFile.restype = ctypes.c_void_p
    library.AddFile.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool]
    library.FreeString.argtypes = [ctypes.c_void_p]
    folder = Path(sys.argv[2])
    repository(library, folder)
    for line in sys.stdin:
        answer = library.AddFile(str(folder).encode(), line.rstrip("\n").encode(), True)
        print(ctypes.string_at(answer).decode() if answer else "", flush=True)
        if answer:
            library.FreeString(answer)


if __name__ == "__main__":
    main()
