"""./build.sh run before any Pi is on: what is built, and what wrong options are told."""

import contextlib
import io
import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run  # noqa: E402

TREE = Path(__file__).resolve().parents[2]


class Options(unittest.TestCase):
    """The command line of ci/emulator/run.py."""

    def main(self, *words):
        """What main() says when it ends before the emulation, and whether it built."""
        with mock.patch.object(sys, "argv", ["run", *words]), mock.patch.object(run, "build") as build, \
                mock.patch.object(run, "find_image", side_effect=FileNotFoundError("no image")), \
                mock.patch.object(run, "forwards", side_effect=SystemExit("forwards")), \
                mock.patch.dict(os.environ), contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as end:
            os.environ.pop("P2PMESH_IMAGE", None)
            run.main()
        return str(end.exception.code), build.called

    def test_it_builds_unless_told_not_to(self):
        self.assertEqual(self.main(), ("run: no image", True))
        self.assertEqual(self.main("--no-build"), ("run: no image", False))
        self.assertEqual(self.main("--image", "some.img"), ("forwards", False))

    def test_wrong_options_are_told_before_anything_is_built(self):
        for words in (["--nodes", "0"], ["--nodes", "17"], ["--nodes", "x"], ["--bogus"], ["--ports", "80"], ["--ports", "1,2,x"],
                      ["--ports", "1,2,99999"]):
            code, built = self.main(*words)
            self.assertFalse(built, words)
            self.assertTrue(code == "2" or code.startswith("run: "), (words, code))

    def test_a_failed_build_does_not_boot_an_old_image(self):
        with mock.patch.dict(os.environ, {"P2PMESH_PYTHON": "false"}), self.assertRaisesRegex(SystemExit, "--no-build"):
            run.build()


class Verbs(unittest.TestCase):
    """./build.sh itself."""

    def ask(self, *words):
        return subprocess.run([str(TREE / "build.sh"), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def test_help_for_every_verb(self):
        listed = self.ask("help").stdout
        verbs = [line.split()[0] for line in listed.split("\n\n")[1].splitlines()]
        self.assertIn("image", verbs)
        for verb in verbs:
            for words in ((verb, "--help"), ("help", verb)):
                shown = self.ask(*words)
                self.assertEqual((shown.returncode, shown.stderr), (0, ""), words)
                self.assertTrue(verb in ("help", "yocto") or f"./build.sh {verb}" in shown.stdout.splitlines()[0], words)

    def test_wrong_verbs(self):
        for words in (["nonsense"], ["nonsense", "--help"], ["help", "nonsense"]):
            shown = self.ask(*words)
            self.assertEqual((shown.returncode, shown.stdout), (2, ""), words)
            self.assertIn("no verb 'nonsense'", shown.stderr)


if __name__ == "__main__":
    unittest.main()
