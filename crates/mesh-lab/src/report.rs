//! Results as `cargo test` prints them, so that whoever counts those counts these.

use std::io::Write;
use std::time::Instant;

use crate::lab::Result;

/// A line on stdout; a reader that is gone is no error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tests that ran, with their results.
#[derive(Debug)]
pub struct Report {
    start: Instant,
    passed: usize,
    failed: Vec<(String, String)>,
}

impl Default for Report {
    fn default() -> Self {
        Self { start: Instant::now(), passed: 0, failed: Vec::new() }
    }
}

impl Report {
    /// Runs a test and says how it went. `None` after a failure.
    pub fn test<T>(&mut self, name: &str, test: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = Instant::now();
        match test() {
            Ok(value) => {
                self.passed += 1;
                say(&format!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f32()));
                Some(value)
            }
            Err(why) => {
                say(&format!("test {name} ... FAILED ({:.1} s)\n    {why}", start.elapsed().as_secs_f32()));
                self.failed.push((name.into(), why));
                None
            }
        }
    }

    /// How many tests have failed so far.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Prints the summary. True if all went well.
    pub fn finish(&self) -> bool {
        let good = self.failed.is_empty();
        if !good {
            say("\nfailures:");
            self.failed.iter().for_each(|(name, why)| say(&format!("    {name}: {why}")));
        }
        say(&format!(
            "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
            if good { "ok" } else { "FAILED" },
            self.passed,
            self.failed.len(),
            self.start.elapsed().as_secs_f32()
        ));
        good
    }
}
