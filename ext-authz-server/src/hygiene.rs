//! What the process owes the secrets in its memory: no core dump, no debugger of the same user.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids core dumps and makes the process undumpable, which also keeps other processes of the user out of its memory.
/// The panic hook of [`crate::log`] prints a place and never a payload.
///
/// # Errors
/// What the kernel refused; the server does not start then.
pub fn protect() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_process_leaves_no_core() {
        protect().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        // An undumpable process may not be readable to itself; then that is proof enough.
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        assert!(core.is_none_or(|line| line.split_whitespace().nth(4) == Some("0")), "{core:?}");
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
