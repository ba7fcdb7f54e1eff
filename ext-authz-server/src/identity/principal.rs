//! Who acts, under one key that no other principal can have.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use unicode_normalization::UnicodeNormalization;

/// A user, perhaps acting through an agent, or an agent acting for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// Injective over how the principal was authenticated, by which issuer, its kind, subject and agent; safe in a file name.
    pub key: String,
    /// Who acts.
    pub kind: PrincipalKind,
    /// The stable id at the issuer, never a display name.
    pub subject: String,
    /// The name of the issuer in `keyward.yaml`.
    pub issuer: String,
    /// The organisation that the principal belongs to: what the issuer's `tenant_claim` says, else the issuer's name. No
    /// credential of one tenant ever serves another.
    pub tenant: String,
    /// The agent's own client id, where the token names one.
    pub agent: Option<String>,
    /// The roles, in the token's order, without repetition.
    pub roles: Vec<String>,
    /// The scopes of the token (RFC 6749 section 3.3), in its order, without repetition.
    pub scopes: Vec<String>,
    /// Who acts for whom, the nearest first: the `act` chain of the token (RFC 8693 section 4.1).
    pub actors: Vec<Actor>,
    /// What the token says of itself.
    pub token: TokenFacts,
    /// The claims of the token.
    pub claims: serde_json::Value,
    /// When the token ends, in seconds since 1970.
    pub expires_unix_secs: u64,
}

/// One link of a delegation chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The subject of the actor, unique at the issuer.
    pub subject: String,
    /// What the actor's `iss` says, where it names one.
    pub issuer: Option<String>,
}

/// What a token says of itself, apart from whom it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its id (`jti`).
    pub id: Option<String>,
    /// When it was issued (`iat`), in seconds since 1970.
    pub issued_unix_secs: Option<u64>,
    /// For whom it is (`aud`).
    pub audiences: Vec<String>,
    /// The key that its holder has to show (`cnf`).
    pub confirmation: Option<Confirmation>,
    /// Whether it only says who calls, and leads to no credential.
    pub bootstrap: bool,
}

/// The key to which a token is bound (RFC 7800).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// `jkt`: the thumbprint of a JWK (RFC 9449 section 6.1).
    Jkt(String),
    /// `x5t#S256`: the SHA-256 of a certificate in base64url (RFC 8705 section 3.1).
    X5tS256(String),
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A person, directly or through an agent.
    User,
    /// An agent with its own identity (client credentials).
    Agent,
    /// A program that its platform vouches for: SPIFFE, Kubernetes, a cloud.
    Workload,
}

/// What the key of a principal was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// The name of the issuer.
    pub issuer: String,
    /// The kind.
    pub kind: String,
    /// The subject.
    pub subject: String,
    /// The agent.
    pub agent: Option<String>,
}

/// How a principal proved who it is.
pub(super) const METHOD_JWT: &str = "jwt";

// === impl Principal ===

impl Principal {
    /// A principal without any property, for what is asked on nobody's behalf. No binding names it.
    #[must_use]
    pub fn nobody() -> Principal {
        Principal {
            key: String::new(),
            kind: PrincipalKind::User,
            subject: String::new(),
            issuer: String::new(),
            tenant: String::new(),
            agent: None,
            roles: Vec::new(),
            scopes: Vec::new(),
            actors: Vec::new(),
            token: TokenFacts::default(),
            claims: serde_json::Value::Null,
            expires_unix_secs: 0,
        }
    }

    /// The key for these parts: each is NFC normalised, base64url encoded, and joined by `.`, so that no choice of parts can
    /// spell another's key. An absent agent is `~`, which base64url cannot produce.
    #[must_use]
    pub fn key(method: &str, issuer: &str, kind: PrincipalKind, subject: &str, agent: Option<&str>) -> String {
        let segment = |text: &str| URL_SAFE_NO_PAD.encode(text.nfc().collect::<String>());
        let agent = agent.map_or_else(|| "~".to_owned(), segment);
        [segment(method), segment(issuer), segment(kind.as_str()), segment(subject), agent].join(".")
    }

    /// What [`Principal::key`] was made of; `None` for another text.
    #[must_use]
    pub fn parts(key: &str) -> Option<KeyParts> {
        let segment = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let parts: Vec<&str> = key.split('.').collect();
        let [_, issuer, kind, subject, agent] = parts.as_slice() else { return None };
        let agent = if *agent == "~" { None } else { Some(segment(agent)?) };
        Some(KeyParts { issuer: segment(issuer)?, kind: segment(kind)?, subject: segment(subject)?, agent })
    }
}

// === impl PrincipalKind ===

impl PrincipalKind {
    /// `user` or `agent`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::User => "user",
            PrincipalKind::Agent => "agent",
            PrincipalKind::Workload => "workload",
        }
    }
}
