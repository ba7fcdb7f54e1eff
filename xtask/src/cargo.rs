//! Calling cargo and other programs.

use std::process::Command;

use anyhow::{Context, Result, bail};
use keyward_tests::files;

/// The cargo that runs this task, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(files::workspace());
    command
}

/// The command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Says what is done now, so that nobody waits without knowing for what.
pub(crate) fn step(what: &str) {
    eprintln!("== {what}");
}

/// Shows the command and runs it to its end.
///
/// # Errors
/// Where it does not start or ends badly.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` does not start"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}
