//! The stage that lets a request into its MCP session: the sealed id that the client shows is opened for this caller at this
//! server entry, or refused.
//!
//! The upstream gets its own id, the filter is told how to seal or hide the one in the answer. What binds an id to its caller
//! is its key, so that replicas with the same keys need nothing in common; whether a session is idle or was ended is
//! remembered, here or in the database.

mod book;
mod kept;
mod keys;

pub use book::Standing;
pub use kept::Kept;
pub use keys::{KeyError, Keyring, MIN_KEY_BYTES, Root, follow, start};

use std::time::{Duration, SystemTime};

use keyward_contract::reason::Reason;
use keyward_contract::session::{Directive, Opened, SESSION_ID_HEADER, Span, open};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::database::unix_ms;
use crate::decision::{Denial, Stage};
use crate::hex::hex;
use crate::operation::Content;
use crate::plan::{Plan, Principal, Server};
use crate::request::Request;
use crate::session::book::Book;
use crate::sources::Sources;

/// What a configuration says of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether ids are sealed; if not, they pass as the upstream wrote them.
    pub seal: bool,
    /// How long a session is, however much it is used.
    pub max_lifetime: Duration,
    /// How long it is unused before it ends.
    pub idle: Duration,
}

/// What outlives a snapshot: the keys, and without a database what is remembered of sessions.
#[derive(Default)]
pub struct Sessions {
    keyring: Keyring,
    book: Book,
}

/// Whose a session is: what its key is made of.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The server entry.
    pub server: &'a str,
    /// The principal's key.
    pub principal: &'a str,
}

/// What the stage found. No `Debug`: it holds the upstream's id and perhaps a key.
#[derive(Default)]
pub struct Passage {
    /// The name of the session in records and lists; absent outside a session.
    pub id: Option<String>,
    upstream_id: Option<Zeroizing<String>>,
    directive: Option<Directive>,
    removes: bool,
}

/// One use of a session, as it is remembered. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The name of the session.
    pub id: &'a str,
    /// Whose it is.
    pub whose: Whose<'a>,
    /// When its id was sealed.
    pub issued_ms: i64,
    /// When it ends, however much it is used.
    pub ends_ms: i64,
    /// When this is.
    pub now_ms: i64,
    /// How long it may be unused.
    pub idle_ms: i64,
}

/// Opens the session that a request names, and says what becomes of the one in its answer.
///
/// # Errors
/// It is not this caller's at this server, has ended, or whether it has cannot be known.
pub async fn admit(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    server: &Server,
    principal: &Principal,
) -> Result<Passage, Denial> {
    let (sources, rules) = (plan.sources(), plan.sources().sessions());
    let Content::Mcp(call) = content else { return Ok(Passage::default()) };
    if !rules.seal {
        return Ok(Passage::default());
    }
    if call.revision.is_stateless() {
        // It knows no sessions: whoever names one is not understood to.
        return Ok(Passage { directive: Some(Directive::Drop), removes: true, ..Passage::default() });
    }
    let (tenant, environment) = (principal.tenant.as_str(), plan.environment());
    let whose = Whose { environment, tenant, server: &server.name, principal: &principal.key };
    let now_ms = unix_ms(SystemTime::now());
    let now_secs = u64::try_from(now_ms / 1000).unwrap_or_default();
    let keys = sources.secrets.sessions().keyring.keys(&whose);
    let sealing = || match keys.first() {
        Some(key) => {
            let ends_unix_secs = now_secs.saturating_add(rules.max_lifetime.as_secs());
            Directive::Seal(key.clone(), Span { issued_unix_secs: now_secs, ends_unix_secs })
        }
        None => Directive::Drop,
    };
    let Some(written) = request.headers.find(SESSION_ID_HEADER) else {
        return Ok(Passage { directive: Some(sealing()), ..Passage::default() });
    };
    let id = name_of(written);
    let denied = |reason, cause: &str| Denial::new(Stage::Session, reason, format!("session `{id}`: {cause}"));
    if keys.is_empty() {
        return Err(denied(Reason::DecisionUnavailable, "there is no key here to open it with"));
    }
    let Some(Opened { span, upstream_id }) = keys.iter().find_map(|key| open(key, written)) else {
        return Err(denied(Reason::SessionNotFound, "its id was not sealed for this caller at this server entry"));
    };
    // A lifetime that was made shorter holds for sessions that stand.
    let ends_unix_secs = span.ends_unix_secs.min(span.issued_unix_secs.saturating_add(rules.max_lifetime.as_secs()));
    if now_secs >= ends_unix_secs {
        return Err(denied(Reason::SessionNotFound, "it is older than `sessions.max_lifetime_secs`"));
    }
    let used = Use {
        id: &id,
        whose,
        issued_ms: unix_secs_ms(span.issued_unix_secs),
        ends_ms: unix_secs_ms(ends_unix_secs),
        now_ms,
        idle_ms: i64::try_from(rules.idle.as_millis()).unwrap_or(i64::MAX),
    };
    match standing(sources, &used).await {
        Ok(Standing::Live) => {}
        Ok(Standing::Idle) => {
            return Err(denied(Reason::SessionNotFound, "it was not used for `sessions.idle_secs`"));
        }
        Ok(Standing::Ended) => return Err(denied(Reason::SessionNotFound, "an operator ended it")),
        Err(cause) => return Err(denied(Reason::DecisionUnavailable, &cause)),
    }
    let begins = call.operations().any(|operation| operation.method == "initialize");
    Ok(Passage {
        directive: Some(if begins { sealing() } else { Directive::Keep }),
        upstream_id: Some(upstream_id),
        removes: false,
        id: Some(id),
    })
}

async fn standing(sources: &Sources, used: &Use<'_>) -> Result<Standing, String> {
    match sources.secrets.state().get() {
        Some(state) => state.sessions.touch(used).await.map_err(|error| error.to_string()),
        None => Ok(sources.secrets.sessions().book.touch(used)),
    }
}

/// The name of a session: what records and lists show of its sealed id, and what leads to nobody's session.
#[must_use]
pub fn name_of(sealed: &str) -> String {
    hex(Sha256::digest(sealed.as_bytes()).iter().take(16))
}

fn unix_secs_ms(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000)
}

// === impl Rules ===

impl Default for Rules {
    fn default() -> Rules {
        let hour = Duration::from_secs(3600);
        Rules { seal: true, max_lifetime: 8 * hour, idle: hour / 2 }
    }
}

// === impl Sessions ===

impl Sessions {
    /// The keys that seal and open ids.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}

// === impl Passage ===

impl Passage {
    /// The id that the upstream gets in place of the client's.
    #[must_use]
    pub fn upstream_id(&self) -> Option<&str> {
        self.upstream_id.as_ref().map(|id| id.as_str())
    }

    /// What the filter does with the id in the answer.
    #[must_use]
    pub fn directive(&self) -> Option<&Directive> {
        self.directive.as_ref()
    }

    /// Whether the client's header goes.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.removes
    }
}
