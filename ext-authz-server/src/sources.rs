//! What a mint may ask: the secret stores, the network, and what was minted before.

use std::sync::Arc;
use std::time::Duration;

use crate::caller::Caller;
use crate::connect::Invitations;
use crate::credential::{Credential, Material};
use crate::freshness::{Freshness, Key, MintError, MintErrorKind};
use crate::grants::Grants;
use crate::outbound::Outbound;
use crate::secret::Secrets;
use crate::session::Rules;

/// How long a store may take for what is not kept.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the end waits for refreshes that are under way.
const ENDING: Duration = Duration::from_secs(5);

/// Everything a credential can be made of.
pub struct Sources {
    /// The secret stores.
    pub secrets: Arc<Secrets>,
    /// The network.
    pub outbound: Outbound,
    /// How people are asked for what is theirs; absent where there are no connect pages.
    pub invitations: Option<Invitations>,
    grants: Option<Arc<dyn Grants>>,
    has_database: bool,
    sessions: Rules,
}

// === impl Sources ===

impl Sources {
    /// These stores, and the network as it is.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>) -> Sources {
        let (outbound, sessions) = (Outbound::default(), Rules::default());
        Sources { secrets, outbound, invitations: None, grants: None, has_database: false, sessions }
    }

    /// The same with this way out.
    #[must_use]
    pub fn with_outbound(mut self, outbound: Outbound) -> Sources {
        self.outbound = outbound;
        self
    }

    /// The same with this way of asking people.
    #[must_use]
    pub fn with_invitations(mut self, invitations: Option<Invitations>) -> Sources {
        self.invitations = invitations;
        self
    }

    /// The same with this store of grants.
    #[must_use]
    pub fn with_grants(mut self, grants: Arc<dyn Grants>) -> Sources {
        self.grants = Some(grants);
        self
    }

    /// The same, which says whether a database is configured: it may not be open yet, or not to whoever looks.
    #[must_use]
    pub fn with_database(mut self, has_database: bool) -> Sources {
        self.has_database = has_database;
        self
    }

    /// The same with these rules for sessions.
    #[must_use]
    pub fn with_sessions(mut self, rules: Rules) -> Sources {
        self.sessions = rules;
        self
    }

    /// What holds for sessions.
    #[must_use]
    pub fn sessions(&self) -> &Rules {
        &self.sessions
    }

    /// Whether a database is configured: what lies in it must not be passed over while it is not open.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.has_database
    }

    /// What people have given; `None` where there is no open database.
    #[must_use]
    pub fn grants(&self) -> Option<Arc<dyn Grants>> {
        self.grants.clone().or_else(|| self.secrets.state().get().map(|state| state.grants.clone()))
    }

    /// What was minted before.
    #[must_use]
    pub fn freshness(&self) -> &Arc<Freshness> {
        self.secrets.freshness()
    }

    /// Waits for refreshes under way, since the next refresh token is stored nowhere yet, then gives back what stores
    /// lent: at the end of the process.
    pub async fn close(&self) {
        if let Some(grants) = self.grants()
            && tokio::time::timeout(ENDING, grants.turns().ended()).await.is_err()
        {
            tracing::warn!("a grant is still being refreshed; its next refresh token may be lost");
        }
        self.secrets.close(None).await;
    }

    /// Under which key the material of a credential is kept; `None` for what is had anew each time.
    #[must_use]
    pub fn key(credential: &Arc<dyn Credential>, caller: &Caller) -> Option<Key> {
        let key = credential.key(caller)?;
        // Whatever a kind's key says: what a person gave serves nobody else, and goes when the grant goes.
        Some(match credential.provider() {
            Some(provider) => key.with("principal", &caller.principal.key).with("provider", provider),
            None => key,
        })
    }

    /// The material of a credential for this caller: kept, or had now.
    ///
    /// # Errors
    /// It could not be had in time.
    pub async fn material(
        self: &Arc<Self>,
        credential: &Arc<dyn Credential>,
        caller: &Arc<Caller>,
    ) -> Result<Arc<Material>, MintError> {
        match self.attempt(credential, caller).await {
            // What made it invalid may be what it is to be made of: somebody who has connected just now.
            Err(MintError { kind: MintErrorKind::Outrun, .. }) => self.attempt(credential, caller).await,
            result => result,
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        credential: &Arc<dyn Credential>,
        caller: &Arc<Caller>,
    ) -> Result<Arc<Material>, MintError> {
        let mint = || credential.clone().mint(caller.clone(), self.clone());
        match Sources::key(credential, caller) {
            Some(key) => self.freshness().get(key, credential.terms(), mint).await,
            None => match tokio::time::timeout(STORE_TIMEOUT, mint()).await {
                Ok(material) => material.map(Arc::new),
                Err(_) => {
                    let references = credential.references().join("`, `");
                    Err(MintError::transient(format!("secret `{references}`: the store did not answer in time")))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::credential::{CredentialError, Minting, Outgoing, SlotName};

    /// Is made invalid while it is had, the first time or each time.
    struct Outrun {
        attempts: AtomicUsize,
        always: bool,
    }

    impl Credential for Outrun {
        fn kind(&self) -> &'static str {
            "outrun"
        }

        fn places(&self) -> Vec<SlotName> {
            Vec::new()
        }

        fn references(&self) -> Vec<String> {
            Vec::new()
        }

        fn key(&self, _caller: &Caller) -> Option<Key> {
            Some(Key::new("outrun", "tenant"))
        }

        fn mint(self: Arc<Self>, _caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
            Box::pin(async move {
                let number = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
                if self.always || number == 1 {
                    sources.freshness().forget(&[("kind", "outrun")]);
                }
                Ok(Material::new().secret("token", format!("token-{number}").into_bytes()))
            })
        }

        fn apply(&self, _material: &Material, _outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_was_made_invalid_while_it_was_had_is_had_once_more() {
        for (always, expected) in [(false, Ok("token-2".to_owned())), (true, Err(MintErrorKind::Outrun))] {
            let sources = Arc::new(Sources::new(Arc::new(Secrets::standard(std::path::Path::new("")))));
            let credential = Arc::new(Outrun { attempts: AtomicUsize::new(0), always });
            let kind: Arc<dyn Credential> = credential.clone();
            let material = sources.material(&kind, &Arc::new(Caller::none("test"))).await;
            let token = |material: Arc<Material>| material.text("token").unwrap_or_default().to_owned();
            assert_eq!(material.map(token).map_err(|error| error.kind), expected);
            assert_eq!(credential.attempts.load(Ordering::SeqCst), 2);
        }
    }
}
