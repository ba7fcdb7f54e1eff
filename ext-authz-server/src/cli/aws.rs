//! `keyward aws`: what an operator needs for trust policies, and whether they work.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{CommandError, ConfigFile, borrowing, load};
use crate::caller::Caller;
use crate::config;
use crate::credential::aws::Aws;
use crate::identity::Principal;
use crate::snapshot::Snapshot;

#[derive(Debug, Args)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the external id of a tenant, for the trust policy of its role.
    ExternalId(Of),
    /// Try identity, external id and role for a tenant; print what is seen, or what is wrong and what to do.
    Check(Of),
}

#[derive(Debug, Args)]
struct Of {
    #[command(flatten)]
    file: ConfigFile,
    /// The `id` of the binding.
    #[arg(long)]
    binding: String,
    /// The tenant, as its tokens name it.
    #[arg(long)]
    tenant: String,
    /// The subject whose session is tried.
    #[arg(long, default_value = "keyward-check")]
    subject: String,
    /// The agent of that session.
    #[arg(long, default_value = "keyward-check")]
    agent: String,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, CommandError> {
    let (Action::ExternalId(of) | Action::Check(of)) = &command.action;
    let snapshots = load(&of.file)?;
    let snapshot = snapshots.current();
    let aws = find(&snapshot, &of.binding)?;
    let caller = Arc::new(of.caller(&snapshot));
    match &command.action {
        Action::ExternalId(_) => {
            let found = borrowing(&snapshot, aws.external_id(&caller, &snapshot.sources))?;
            match found.map_err(|error| CommandError::Other(error.to_string()))? {
                Some(id) => println!("{id}"),
                None => return Err(CommandError::Other(format!("binding `{}` uses no external id", of.binding))),
            }
        }
        Action::Check(_) => {
            let findings = borrowing(&snapshot, aws.probe(&caller, &snapshot.sources))?;
            for finding in &findings {
                match &finding.result {
                    Ok(seen) => println!("pass  {}: {seen}", finding.step),
                    Err(error) => println!("fail  {}: {error}", finding.step),
                }
            }
            if findings.iter().any(|finding| finding.result.is_err()) {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The AWS credential of a binding.
fn find(snapshot: &Snapshot, id: &str) -> Result<Arc<Aws>, CommandError> {
    let binding = snapshot.config.bindings.iter().find(|binding| binding.id == id);
    let credentials = binding.into_iter().flat_map(|binding| &binding.credentials);
    let mut found = credentials.filter_map(|credential| match credential {
        config::Credential::Aws(own) => Some(Arc::new(Aws::new(own.clone()))),
        _ => None,
    });
    found
        .next()
        .ok_or_else(|| CommandError::Other(format!("there is no binding `{id}` with a credential of type `aws`")))
}

impl Of {
    fn caller(&self, snapshot: &Snapshot) -> Caller {
        let config = &snapshot.config;
        let binding = config.bindings.iter().find(|binding| binding.id == self.binding);
        let principal = Principal {
            subject: self.subject.clone(),
            tenant: self.tenant.clone(),
            agent: Some(self.agent.clone()),
            issuer: config.identity.issuers.first().map(|issuer| issuer.name.clone()).unwrap_or_default(),
            ..Principal::nobody()
        };
        let server = binding.and_then(|binding| binding.servers.first()).cloned().unwrap_or_default();
        Caller { server, principal: Arc::new(principal), ..Caller::none(&config.environment) }
    }
}
