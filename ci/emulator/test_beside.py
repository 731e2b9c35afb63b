"""ci/beside: classes run at the same time, and nothing that goes wrong is lost."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[1] / "beside"
HEAD = """
import os, time, unittest
def until(name):
    end = time.monotonic() + 60
    while not os.path.exists(name):
        assert time.monotonic() < end, f"no {name}"
        time.sleep(0.01)
"""
# Each can pass only while the other one runs.
PAIR = HEAD + """
class One(unittest.TestCase):
    def test(self):
        open("one", "w").close()
        until("two")
class Two(unittest.TestCase):
    def test(self):
        open("two", "w").close()
        until("one")
"""
WAITS = HEAD + """
class Waits(unittest.TestCase):
    def test(self):
        open("begun", "w").close()
        until("never")
class Next(unittest.TestCase):
    def test(self):
        open("next", "w").close()
"""


class Beside(unittest.TestCase):
    """Folders of small tests."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_with(self, text, *first):
        """(exit code, what is said) of a run over tests with this text."""
        (self.folder / "test_it.py").write_text(text)
        result = subprocess.run([sys.executable, BESIDE, self.folder, *first], capture_output=True, text=True, check=False, timeout=120)
        return result.returncode, result.stdout + result.stderr

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one core runs one class at a time")
    def test_two_classes_run_at_the_same_time(self):
        code, said = self.run_with(PAIR)
        self.assertEqual((code, said.count("Ran 1 test in"), said.count("\nOK\n")), (0, 2, 2), said)

    def test_the_named_begin_first(self):
        code, said = self.run_with(PAIR, "test_it.Two")
        self.assertEqual((code, said.splitlines()[0]), (0, "test_it.Two begins"), said)

    def test_a_failure_a_crash_and_a_file_that_can_not_be_read_are_failures(self):
        failure = "import os, unittest\nclass Bad(unittest.TestCase):\n    def test(self):\n        {}\n"
        for text, word in ((failure.format("self.fail('as told')"), "as told"), (failure.format("os._exit(3)"), "test_it.Bad: "),
                           ("import nonsense\n", "nonsense"), ("", "")):
            with self.subTest(word):
                code, said = self.run_with(text)
                self.assertEqual(code, 1, said)
                self.assertIn(word, said)
        self.assertEqual(self.run_with(PAIR, "test_it.Three"), (1, f"no test class test_it.Three in {self.folder}\n"))

    def test_an_interrupt_ends_what_runs_and_begins_nothing(self):
        (self.folder / "test_it.py").write_text(WAITS)
        # On one core, so that the other class has to wait.
        core = f"import os, sys; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); " \
               "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        process = subprocess.Popen([sys.executable, "-c", core, BESIDE, self.folder, "test_it.Waits"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 60
        while not (self.folder / "begun").exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, and ci/run-tests
        self.assertEqual(process.wait(60), 1)
        self.assertTrue((self.folder / "begun").exists())
        self.assertFalse((self.folder / "next").exists())


if __name__ == "__main__":
    unittest.main()
