//! Counts the results of cargo's test programs while passing their output on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::cargo;

/// What came out so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that were ignored.
    pub(crate) ignored: u64,
    /// Commands that ended badly, for example because something does not compile.
    pub(crate) broken: Vec<String>,
}

// === impl Summary ===

impl Summary {
    /// Runs a `cargo test` command and adds its results. A failure is noted, not returned.
    ///
    /// # Errors
    /// Where the command does not start.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        let line = cargo::line(command);
        eprintln!("$ {line}");
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{line}` does not start"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("`{line}` has no output"))?;
        for text in BufReader::new(stdout).lines() {
            let text = text?;
            println!("{text}");
            self.add(&text);
        }
        if !child.wait()?.success() {
            self.broken.push(line);
        }
        Ok(())
    }

    /// Whether everything passed, and something ran.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.broken.is_empty() && self.passed > 0
    }

    fn add(&mut self, text: &str) {
        let Some(counts) = text.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.1.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_result_lines_of_cargo() {
        let mut summary = Summary::default();
        summary.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        summary
            .add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        summary.add("test deny::policy ... ok");
        assert_eq!(summary, Summary { passed: 15, failed: 2, ignored: 1, broken: Vec::new() });
        assert!(!summary.is_good());
    }
}
