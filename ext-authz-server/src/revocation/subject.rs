//! What can be revoked, and what of that a call rests on.

use std::fmt;

use keyward_contract::revocation::{TAG_BYTES, Tag};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::{Confirmation, Principal, PrincipalKind};

/// The longest part of a subject, in bytes.
const MAX_PART_BYTES: usize = 2048;
/// What tags are digests of begins with this, so that no other digest is one.
const DOMAIN: &[u8] = b"keyward revocation 1\0";

/// What kind of thing is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tenant: everybody in it.
    Tenant,
    /// A person, through whichever agent.
    Human,
    /// An agent, for whichever person.
    Agent,
    /// A workload.
    Workload,
    /// A binding: whoever would be served by it.
    Binding,
    /// One token, by its `jti`, or by its SHA-256 in lower-case hex after `sha256:`.
    Token,
    /// A proof-of-possession key, by its thumbprint: `jkt` (RFC 9449) or `x5t#S256` (RFC 8705).
    Key,
}

/// Something that can be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Its kind.
    pub kind: Kind,
    /// The tenant; empty for a binding, which belongs to none.
    pub tenant: String,
    /// The name of the issuer that vouches for it, for what an issuer names.
    pub issuer: Option<String>,
    /// Its id: a subject, client id, binding id, `jti` or thumbprint; empty for a tenant, which is named already.
    pub id: String,
    /// Only at this server entry, for people, agents and workloads.
    pub server: Option<String>,
}

/// A subject that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A part that it needs is missing or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part that it does not have.
    #[error("a {0} has no {1}")]
    Odd(&'static str, &'static str),
    /// A part is too long or has control characters.
    #[error("{0} is longer than {MAX_PART_BYTES} bytes, or has control characters")]
    Part(&'static str),
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Tenant, Kind::Human, Kind::Agent, Kind::Workload, Kind::Binding, Kind::Token, Kind::Key];

    /// The name in commands, records and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tenant => "tenant",
            Kind::Human => "human",
            Kind::Agent => "agent",
            Kind::Workload => "workload",
            Kind::Binding => "binding",
            Kind::Token => "token",
            Kind::Key => "key",
        }
    }

    fn is_actor(self) -> bool {
        matches!(self, Kind::Human | Kind::Agent | Kind::Workload)
    }
}

// === impl Subject ===

impl Subject {
    /// # Errors
    /// It has not exactly the parts that its kind has.
    pub fn check(&self) -> Result<(), SubjectError> {
        let Subject { kind, tenant, issuer, id, server } = self;
        let name = kind.as_str();
        let needs = |part: &str, says| if part.is_empty() { Err(SubjectError::Missing(says)) } else { Ok(()) };
        match kind {
            Kind::Binding if !tenant.is_empty() => return Err(SubjectError::Odd(name, "tenant")),
            Kind::Binding => {}
            _ => needs(tenant, "the tenant")?,
        }
        match kind {
            Kind::Tenant if !id.is_empty() => return Err(SubjectError::Odd(name, "id besides")),
            Kind::Tenant => {}
            _ => needs(id, "the id")?,
        }
        match (kind.is_actor() || *kind == Kind::Token, issuer) {
            (true, issuer) => needs(issuer.as_deref().unwrap_or_default(), "the issuer")?,
            (false, Some(_)) => return Err(SubjectError::Odd(name, "issuer")),
            (false, None) => {}
        }
        match server {
            Some(_) if !kind.is_actor() => return Err(SubjectError::Odd(name, "server")),
            Some(server) => needs(server, "the server")?,
            None => {}
        }
        let parts = [("the tenant", Some(tenant)), ("the issuer", issuer.as_ref()), ("the id", Some(id))];
        for (says, part) in parts.into_iter().chain([("the server", server.as_ref())]) {
            if part.is_some_and(|part| part.len() > MAX_PART_BYTES || part.chars().any(char::is_control)) {
                return Err(SubjectError::Part(says));
            }
        }
        Ok(())
    }

    /// Whether a principal's key is one of this person, agent or workload, through whichever agent or for whichever person.
    #[must_use]
    pub fn owns(&self, principal_key: &str) -> bool {
        let Some(parts) = Principal::parts(principal_key) else { return false };
        let own = |text: &Option<String>| text.as_deref() == Some(self.id.as_str());
        let is_acting = match self.kind {
            Kind::Human => parts.kind == PrincipalKind::User.as_str() && parts.subject == self.id,
            Kind::Agent => {
                own(&parts.agent) || (parts.kind == PrincipalKind::Agent.as_str() && parts.subject == self.id)
            }
            Kind::Workload => parts.kind == PrincipalKind::Workload.as_str() && parts.subject == self.id,
            Kind::Tenant | Kind::Binding | Kind::Token | Kind::Key => false,
        };
        is_acting && self.issuer.as_deref() == Some(parts.issuer.as_str())
    }

    /// The tag of the subject in this environment.
    #[must_use]
    pub fn tag(&self, environment: &str) -> Tag {
        let Subject { kind, tenant, issuer, id, server } = self;
        tag(environment, *kind, tenant, issuer.as_deref(), id, server.as_deref())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { kind, tenant, issuer, id, server } = self;
        f.write_str(kind.as_str())?;
        if *kind != Kind::Tenant {
            write!(f, " {id:?}")?;
        }
        if let Some(issuer) = issuer {
            write!(f, " of issuer {issuer:?}")?;
        }
        match kind {
            Kind::Binding => {}
            Kind::Tenant => write!(f, " {tenant:?}")?,
            _ => write!(f, " in tenant {tenant:?}")?,
        }
        server.as_ref().map_or(Ok(()), |server| write!(f, " at server {server:?}"))
    }
}

/// The digest of the parts, each with its length, so that no other parts have the same text.
fn tag(environment: &str, kind: Kind, tenant: &str, issuer: Option<&str>, id: &str, server: Option<&str>) -> Tag {
    let mut digest = Sha256::new_with_prefix(DOMAIN);
    for part in [Some(environment), Some(kind.as_str()), Some(tenant), issuer, Some(id), server] {
        // No part is that long: an absent one is no empty one.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        digest.update(length.to_be_bytes());
        digest.update(part.unwrap_or_default());
    }
    let digest = digest.finalize();
    let mut tag = [0; TAG_BYTES];
    tag.iter_mut().zip(digest).for_each(|(byte, own)| *byte = own);
    tag
}

/// The tags of everything that a call rests on, its bindings excepted. `token` is the token itself, where there is one.
#[must_use]
pub fn of_call(environment: &str, principal: &Principal, server: &str, token: Option<&str>) -> Vec<Tag> {
    let Principal { tenant, issuer, subject, .. } = principal;
    let mut tags = Vec::with_capacity(12);
    tags.push(tag(environment, Kind::Tenant, tenant, None, "", None));
    let mut actor = |kind, issuer: &str, id: &str| {
        tags.push(tag(environment, kind, tenant, Some(issuer), id, None));
        tags.push(tag(environment, kind, tenant, Some(issuer), id, Some(server)));
    };
    actor(
        match principal.kind {
            PrincipalKind::User => Kind::Human,
            PrincipalKind::Agent => Kind::Agent,
            PrincipalKind::Workload => Kind::Workload,
        },
        issuer,
        subject,
    );
    if let Some(agent) = &principal.agent
        && (principal.kind != PrincipalKind::Agent || agent != subject)
    {
        actor(Kind::Agent, issuer, agent);
    }
    for own in &principal.actors {
        // The issuer that vouches for the chain is the one whose token it stands in, whatever the chain says.
        for kind in [Kind::Agent, Kind::Workload] {
            actor(kind, issuer, &own.subject);
        }
    }
    if let Some(id) = &principal.token.id {
        tags.push(tag(environment, Kind::Token, tenant, Some(issuer), id, None));
    }
    if let Some(token) = token {
        let digest = format!("sha256:{}", crate::hex::hex(Sha256::digest(token.as_bytes()).iter()));
        tags.push(tag(environment, Kind::Token, tenant, Some(issuer), &digest, None));
    }
    match &principal.token.confirmation {
        Some(Confirmation::Jkt(thumbprint) | Confirmation::X5tS256(thumbprint)) => {
            tags.push(tag(environment, Kind::Key, tenant, None, thumbprint, None));
        }
        None => {}
    }
    tags
}

/// The tag of a binding.
#[must_use]
pub fn of_binding(environment: &str, id: &str) -> Tag {
    tag(environment, Kind::Binding, "", None, id, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Actor;

    fn subject(kind: Kind, issuer: Option<&str>, id: &str, server: Option<&str>) -> Subject {
        let tenant = if kind == Kind::Binding { "" } else { "acme" };
        let own = |part: Option<&str>| part.map(str::to_owned);
        Subject { kind, tenant: tenant.to_owned(), issuer: own(issuer), id: id.to_owned(), server: own(server) }
    }

    fn alice_through(agent: &str) -> Principal {
        let mut principal = Principal::nobody();
        principal.tenant = "acme".to_owned();
        principal.issuer = "corporate".to_owned();
        principal.subject = "alice".to_owned();
        principal.agent = Some(agent.to_owned());
        principal.token.id = Some("t1".to_owned());
        principal.token.confirmation = Some(Confirmation::Jkt("thumb".to_owned()));
        principal
    }

    /// The table of docs/revocation.md.
    #[test]
    fn a_call_rests_on_all_of_these_and_on_nothing_else() {
        let mut principal = alice_through("bot");
        principal.actors = vec![Actor { subject: "helper".to_owned(), issuer: None }];
        let tags = of_call("test", &principal, "jira", Some("a.b.c"));
        let digest = format!("sha256:{}", crate::hex::hex(Sha256::digest("a.b.c").iter()));
        let corporate = Some("corporate");
        for hit in [
            subject(Kind::Tenant, None, "", None),
            subject(Kind::Human, corporate, "alice", None),
            subject(Kind::Human, corporate, "alice", Some("jira")),
            subject(Kind::Agent, corporate, "bot", None),
            subject(Kind::Agent, corporate, "bot", Some("jira")),
            subject(Kind::Agent, corporate, "helper", None),
            subject(Kind::Workload, corporate, "helper", Some("jira")),
            subject(Kind::Token, corporate, "t1", None),
            subject(Kind::Token, corporate, &digest, None),
            subject(Kind::Key, None, "thumb", None),
        ] {
            hit.check().unwrap();
            assert!(tags.contains(&hit.tag("test")), "{hit}");
            assert!(!tags.contains(&hit.tag("production")), "{hit}");
            let elsewhere = Subject { tenant: "other".to_owned(), ..hit };
            assert!(!tags.contains(&elsewhere.tag("test")), "{elsewhere}");
        }
        for miss in [
            subject(Kind::Human, corporate, "bot", None),
            subject(Kind::Agent, corporate, "alice", None),
            subject(Kind::Workload, corporate, "alice", None),
            subject(Kind::Human, corporate, "alice", Some("wiki")),
            subject(Kind::Human, Some("partner"), "alice", None),
            subject(Kind::Token, corporate, "t2", None),
            subject(Kind::Key, None, "other", None),
            subject(Kind::Binding, None, "alice", None),
        ] {
            assert!(!tags.contains(&miss.tag("test")), "{miss}");
        }
        // For an agent of its own it is said once.
        let mut own = alice_through("bot");
        own.kind = PrincipalKind::Agent;
        own.subject = "bot".to_owned();
        let tags = of_call("test", &own, "jira", None);
        assert_eq!(
            tags.iter().filter(|tag| **tag == subject(Kind::Agent, corporate, "bot", None).tag("test")).count(),
            1
        );
    }

    #[test]
    fn grants_are_found_by_whom_they_are_of() {
        let key = |kind, subject, agent| Principal::key("jwt", "corporate", kind, subject, agent);
        let alice = key(PrincipalKind::User, "alice", Some("bot"));
        let bot = key(PrincipalKind::Agent, "bot", Some("bot"));
        let human = subject(Kind::Human, Some("corporate"), "alice", None);
        let agent = subject(Kind::Agent, Some("corporate"), "bot", None);
        assert!(human.owns(&alice) && !human.owns(&bot));
        assert!(agent.owns(&alice) && agent.owns(&bot));
        assert!(!subject(Kind::Human, Some("partner"), "alice", None).owns(&alice));
        assert!(!subject(Kind::Human, Some("corporate"), "bot", None).owns(&alice));
        for odd in ["", "a.b", "a.b.c.d.e.f", "*.b.c.d.~"] {
            assert!(!human.owns(odd) && !agent.owns(odd), "{odd}");
        }
    }

    #[test]
    fn no_choice_of_parts_spells_another_subject() {
        let tags = [
            tag("e", Kind::Human, "a", Some("b"), "c", None),
            tag("e", Kind::Human, "a", Some("b"), "c", Some("")),
            tag("e", Kind::Human, "a", None, "bc", None),
            tag("e", Kind::Human, "a", Some(""), "bc", None),
            tag("e", Kind::Human, "ab", Some(""), "c", None),
            tag("e", Kind::Human, "", Some("ab"), "c", None),
            tag("eh", Kind::Human, "a", Some("b"), "c", None),
            tag("e", Kind::Agent, "a", Some("b"), "c", None),
        ];
        for (position, tag) in tags.iter().enumerate() {
            assert!(!tags[..position].contains(tag), "{position}");
        }
    }

    #[test]
    fn a_subject_has_the_parts_of_its_kind_and_no_others() {
        for (own, says) in [
            (subject(Kind::Human, None, "alice", None), "the issuer is missing"),
            (subject(Kind::Human, Some("corporate"), "", None), "the id is missing"),
            (subject(Kind::Human, Some("corporate"), "a\nb", None), "the id is longer"),
            (subject(Kind::Tenant, None, "x", None), "a tenant has no id besides"),
            (subject(Kind::Key, None, "thumb", Some("jira")), "a key has no server"),
            (subject(Kind::Key, Some("corporate"), "thumb", None), "a key has no issuer"),
            (
                Subject { tenant: "acme".to_owned(), ..subject(Kind::Binding, None, "b", None) },
                "a binding has no tenant",
            ),
            (Subject { tenant: String::new(), ..subject(Kind::Token, Some("i"), "t", None) }, "the tenant is missing"),
        ] {
            let error = own.check().unwrap_err().to_string();
            assert!(error.starts_with(says), "{own}: {error}");
        }
    }
}
