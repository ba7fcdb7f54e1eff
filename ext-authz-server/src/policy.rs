//! May they: Rego, package `keyward`, rule `decision`, evaluated by regorus.
//!
//! Deny by default: an undefined decision, one that is not an object of the documented shape, an unknown obligation, an
//! evaluation error and an evaluation over its bound are all denials that say why.

mod input;
mod source;
mod verdict;

pub use input::{Http, Input, Operation, OperationKind};
/// A value inside the policy engine; cheap to clone.
pub use regorus::Value;
pub use source::PolicySource;
pub use verdict::{Failure, Verdict};

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regorus::CompiledPolicy;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::RegoVM;
use regorus::rvm::program::Program;
use regorus::rvm::vm::VmError;
use regorus::utils::limits::ExecutionTimerConfig;

/// The entry point.
const DECISION: &str = "data.keyward.decision";
/// How many machines are kept for the next evaluations.
const POOLED_MACHINES: usize = 64;
/// How many instructions run between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// A compiled policy and its data. Evaluations share nothing but these.
pub struct Policy {
    compiled: CompiledPolicy,
    program: Arc<Program>,
    data: Value,
    limits: Limits,
    machines: Mutex<Vec<RegoVM>>,
}

/// The bounds of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest evaluation.
    pub timeout: Duration,
    /// The most instructions.
    pub max_instructions: usize,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or the directory cannot be read.
    #[error("read `{}`: {cause}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file, or all of them, are larger than they may be.
    #[error("`{}`: {what}", path.display())]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
    },
    /// A file is not UTF-8.
    #[error("`{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// There is no Rego.
    #[error("`{}` holds no `*.rego` file", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The data is not a JSON object.
    #[error("`{}`: {cause}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        cause: String,
    },
    /// The Rego does not compile.
    #[error("`{}`:{line}:{column}: {cause}", path.display())]
    Rego {
        /// The file, or the directory where no file can be named.
        path: PathBuf,
        /// The line, from 1; 0 where there is none.
        line: u64,
        /// The column, from 1; 0 where there is none.
        column: u64,
        /// What is wrong.
        cause: String,
    },
    /// No file has the entry point.
    #[error("`{}`: no file has the rule `decision` in package `keyward`", path.display())]
    NoDecision {
        /// The directory.
        path: PathBuf,
    },
}

// === impl Policy ===

impl Policy {
    /// Reads and compiles `*.rego` (except `*_test.rego`) and `data.json` of a directory.
    ///
    /// # Errors
    /// An unreadable file, Rego that does not compile, data that is not a JSON object, no rule `decision`.
    pub fn load(directory: &Path, limits: Limits) -> Result<Policy, PolicyError> {
        Policy::compile(&PolicySource::read(directory)?, limits)
    }

    /// Compiles what was read.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn compile(source: &PolicySource, limits: Limits) -> Result<Policy, PolicyError> {
        let mut engine = source.engine()?;
        let data = engine.get_data();
        if !engine.get_packages().is_ok_and(|packages| packages.iter().any(|package| package == "data.keyward")) {
            return Err(PolicyError::NoDecision { path: source.directory().to_owned() });
        }
        let rego = |error: String| source.locate(&error);
        let compiled = match engine.compile_with_entrypoint(&DECISION.into()) {
            Ok(compiled) => compiled,
            Err(error) if error.to_string().contains("not a valid rule path") => {
                return Err(PolicyError::NoDecision { path: source.directory().to_owned() });
            }
            Err(error) => return Err(rego(error.to_string())),
        };
        if !compiled.get_rules().contains_key(DECISION) {
            return Err(PolicyError::NoDecision { path: source.directory().to_owned() });
        }
        let program = Compiler::compile_from_policy_with_host_await(&compiled, &[DECISION], &[])
            .map_err(|error| rego(error.to_string()))?;
        let policy = Policy { compiled, program, data, limits, machines: Mutex::default() };
        let machine = policy.machine().map_err(|error| rego(error.to_string()))?;
        policy.give_back(machine);
        Ok(policy)
    }

    /// Decides. Never fails: what cannot be decided is denied, with the failure in the verdict.
    #[must_use]
    pub fn decide(&self, input: &Input<'_>) -> Verdict {
        self.decide_value(input.to_value())
    }

    /// Decides on an input that is a value already.
    #[must_use]
    pub fn decide_value(&self, input: Value) -> Verdict {
        match self.evaluate(input) {
            Ok(decision) => Verdict::read(&decision),
            Err(error) => Verdict::failed(failure(&error)),
        }
    }

    fn evaluate(&self, input: Value) -> Result<Value, VmError> {
        let mut machine = self.machine()?;
        machine.set_input(input);
        // A machine that stopped with an error is not used again.
        let decision = machine.execute_entry_point_by_name(DECISION)?;
        machine.set_input(Value::Null);
        self.give_back(machine);
        Ok(decision)
    }

    fn machine(&self) -> Result<RegoVM, VmError> {
        if let Some(machine) = self.machines.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(machine);
        }
        let mut machine = RegoVM::new_with_policy(self.compiled.clone());
        machine.load_program(self.program.clone());
        machine.set_data(self.data.clone())?;
        machine.set_max_instructions(self.limits.max_instructions);
        machine.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: self.limits.timeout,
            check_interval: CLOCK_INTERVAL,
        }));
        // An error fails the body that holds it. Otherwise it would be undefined, and `not contains(a_number, "..")` true.
        machine.set_strict_builtin_errors(true);
        Ok(machine)
    }

    fn give_back(&self, machine: RegoVM) {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        if machines.len() < POOLED_MACHINES {
            machines.push(machine);
        }
    }
}

/// What an error means. Its own text can hold parts of the input, so only its kind is kept.
fn failure(error: &VmError) -> Failure {
    let kind: String = format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
    match error {
        VmError::InstructionLimitExceeded { .. }
        | VmError::TimeLimitExceeded { .. }
        | VmError::MemoryLimitExceeded { .. }
        | VmError::MemoryBudgetExceeded { .. }
        | VmError::RegexSizeLimitExceeded { .. } => Failure::OverBound(kind),
        _ => Failure::Evaluation(kind),
    }
}

#[cfg(test)]
mod tests;
