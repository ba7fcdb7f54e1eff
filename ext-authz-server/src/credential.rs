//! Having the credential: resolves references, composes values, and says what else has to leave the request.

pub mod basic;
pub mod header;
pub mod query;
pub mod slot;

use std::time::Duration;

use keyward_contract::check::STRIPPED_HEADERS;
use keyward_contract::reason::Reason;
use zeroize::Zeroizing;

use crate::binding::{Binding, Choice, Mode};
use crate::config::SecretSource;
use crate::decision::{Denial, Stage};
use crate::plan::Secrets;

pub use slot::{CredentialError, MIN_DISTINCT_BYTES, MIN_SECRET_BYTES, Slot, SlotName};

/// How long a store may take for one secret.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// A credential of a binding: the place, and the reference to the secret.
#[derive(Clone, Debug)]
pub struct Credential {
    place: Place,
    secret: SecretSource,
}

/// Where a credential goes and how its value is composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header with a template.
    Header {
        /// The name, sent as written.
        name: String,
        /// With exactly one `{secret}`.
        template: String,
    },
    /// A query parameter.
    Query {
        /// The name, not encoded.
        name: String,
        /// With exactly one `{secret}`.
        template: String,
    },
    /// HTTP Basic.
    Basic {
        /// Without a colon.
        username: String,
    },
}

/// All changes to the upstream request. No `Debug`: it holds secrets; they are wiped when it is dropped.
#[derive(Default)]
pub struct Injection {
    slots: Vec<Slot>,
    remove_headers: Vec<String>,
    remove_query: Vec<String>,
}

// === impl Credential ===

impl Credential {
    /// A credential from configuration.
    #[must_use]
    pub fn new(place: Place, secret: SecretSource) -> Credential {
        Credential { place, secret }
    }

    /// The place in the upstream request.
    #[must_use]
    pub fn slot(&self) -> SlotName {
        match &self.place {
            Place::Header { name, .. } => SlotName::Header(name.clone()),
            Place::Query { name, .. } => SlotName::Query(query::encode(name.as_bytes()).to_string()),
            Place::Basic { .. } => SlotName::Header(basic::HEADER.to_owned()),
        }
    }

    /// The reference to the secret, as configuration writes it.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.secret.reference
    }

    /// Resolves the reference and composes the value.
    ///
    /// # Errors
    /// The store cannot give the secret in time, or its value cannot go there.
    pub async fn resolve(&self, store: &dyn Secrets) -> Result<Slot, CredentialError> {
        let secret = match tokio::time::timeout(STORE_TIMEOUT, store.secret(&self.secret)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => {
                return Err(CredentialError::Secret { reference: self.reference().to_owned(), cause: error });
            }
            Err(_) => return Err(CredentialError::Timeout(self.reference().to_owned())),
        };
        compose(&self.place, secret.expose())
    }
}

fn distinct_bytes(secret: &[u8]) -> usize {
    secret.iter().collect::<std::collections::BTreeSet<_>>().len()
}

fn compose(place: &Place, secret: &[u8]) -> Result<Slot, CredentialError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(CredentialError::TooShort);
    }
    if distinct_bytes(secret) < MIN_DISTINCT_BYTES {
        return Err(CredentialError::TooUniform);
    }
    match place {
        Place::Header { name, template } => header::compose(name, template, secret),
        Place::Query { name, template } => query::compose(name, template, secret),
        Place::Basic { username } => basic::compose(username, secret),
    }
}

// === impl Injection ===

impl Injection {
    /// What goes into the request, in order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What must never come back, without repetition.
    pub fn scrub(&self) -> impl Iterator<Item = &[u8]> {
        let mut seen: Vec<&[u8]> = Vec::new();
        let all =
            self.slots.iter().flat_map(|slot| slot.scrub.iter().map(|value: &Zeroizing<Vec<u8>>| value.as_slice()));
        for value in all {
            if !seen.contains(&value) {
                seen.push(value);
            }
        }
        seen.into_iter()
    }

    /// Names of headers and of query parameters that leave the request.
    #[must_use]
    pub fn removals(&self) -> (Vec<String>, Vec<String>) {
        (self.remove_headers.clone(), self.remove_query.clone())
    }
}

/// Resolves every credential of the chosen bindings.
///
/// # Errors
/// The first credential that cannot be had; nothing is injected then.
pub async fn inject(choice: &Choice, query: Option<&str>, store: &dyn Secrets) -> Result<Injection, Denial> {
    check_query(choice, query)?;
    let mut injection = Injection::default();
    for binding in &choice.bindings {
        for credential in &binding.credentials {
            let slot = credential.resolve(store).await.map_err(|error| {
                let cause = format!("binding `{}`: {error}", binding.id);
                Denial::new(Stage::Credential, Reason::CredentialUnavailable, cause)
            })?;
            injection.slots.push(slot);
        }
    }
    remove_others(choice, &mut injection);
    Ok(injection)
}

/// Removes what no client may send and every place of this server's credentials that is not filled now.
fn remove_others(choice: &Choice, injection: &mut Injection) {
    let filled = |name: &SlotName| injection.slots.iter().any(|slot| slot.name == *name);
    let let_through = |name: &str| {
        let mut passing = choice.bindings.iter().filter(|binding| binding.mode == Mode::Passthrough);
        passing.any(|binding: &std::sync::Arc<Binding>| {
            binding.passthrough.iter().any(|header| header.eq_ignore_ascii_case(name))
        })
    };
    let mut headers: Vec<String> = Vec::new();
    let mut parameters: Vec<String> = Vec::new();
    for name in STRIPPED_HEADERS {
        if !filled(&SlotName::Header(name.to_owned())) {
            headers.push(name.to_owned());
        }
    }
    for slot in &choice.server_slots {
        match slot {
            _ if filled(slot) => {}
            SlotName::Header(name) => {
                let name = name.to_ascii_lowercase();
                if !headers.contains(&name) && !let_through(&name) {
                    headers.push(name);
                }
            }
            SlotName::Query(name) => parameters.push(name.clone()),
        }
    }
    injection.remove_headers = headers;
    injection.remove_query = parameters;
}

/// Refuses a query that names a credential's parameter in another spelling: Envoy compares raw names, an upstream decodes
/// them, splits at `;` or ignores case, and would read the client's value beside or instead of ours.
fn check_query(choice: &Choice, query: Option<&str>) -> Result<(), Denial> {
    let Some(query) = query else { return Ok(()) };
    for slot in &choice.server_slots {
        if let SlotName::Query(name) = slot
            && query::names_otherwise(query, name)
        {
            let cause = format!("the query names the {slot} in another spelling");
            return Err(Denial::new(Stage::Credential, Reason::InvalidRequest, cause));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::plan::Pending;
    use crate::secret::SecretBytes;

    fn source() -> SecretSource {
        SecretSource { reference: "env://TEST".into(), json_key: None, trim_newline: false }
    }

    struct Store(&'static [u8]);

    impl Secrets for Store {
        fn secret<'a>(&'a self, _: &'a SecretSource) -> Pending<'a, Result<Arc<SecretBytes>, String>> {
            Box::pin(async { Ok(Arc::new(SecretBytes::new(self.0.to_vec()))) })
        }
    }

    struct Stuck;

    impl Secrets for Stuck {
        fn secret<'a>(&'a self, _: &'a SecretSource) -> Pending<'a, Result<Arc<SecretBytes>, String>> {
            Box::pin(std::future::pending())
        }
    }

    fn header(template: &str) -> Place {
        Place::Header { name: "X-Api-Key".into(), template: template.into() }
    }

    fn query() -> Place {
        Place::Query { name: "apiKey".into(), template: "{secret}".into() }
    }

    fn basic(username: &str) -> Place {
        Place::Basic { username: username.into() }
    }

    #[test]
    fn values_are_composed_and_everything_that_reveals_them_is_scrubbed() {
        type Case<'a> = (Place, &'a [u8], &'a str, &'a [&'a [u8]]);
        let cases: [Case<'_>; 6] = [
            (header("{secret}"), b"s3cr3t-key", "s3cr3t-key", &[b"s3cr3t-key"]),
            (header("Bearer {secret}"), b"s3cr3t-key", "Bearer s3cr3t-key", &[b"s3cr3t-key"]),
            (header("{secret}"), "schlüssel".as_bytes(), "schlüssel", &["schlüssel".as_bytes()]),
            (query(), b"a b/c&d=e%", "a%20b%2Fc%26d%3De%25", &[b"a b/c&d=e%"]),
            (query(), "schlüssel".as_bytes(), "schl%C3%BCssel", &["schlüssel".as_bytes()]),
            (
                basic("svc"),
                b"pass:word",
                "Basic c3ZjOnBhc3M6d29yZA==",
                &[b"pass:word", b"svc:pass:word", b"c3ZjOnBhc3M6d29yZA=="],
            ),
        ];
        for (place, secret, value, scrub) in cases {
            let slot = compose(&place, secret).unwrap_or_else(|error| panic!("{place:?}: {error}"));
            assert_eq!(slot.value.as_str(), value);
            assert_eq!(slot.scrub.iter().map(|value| value.as_slice()).collect::<Vec<_>>(), scrub);
        }
    }

    #[test]
    fn values_that_cannot_go_there_are_refused() {
        use CredentialError::*;
        let cases: [(Place, &[u8], CredentialError); 17] = [
            (header("{secret}"), b"short", TooShort),
            (header("{secret}"), b"\\\\\\\\\\\\\\\\\\\\", TooUniform),
            (header("{secret}"), b"line\r\nx-evil: 1", Control),
            (header("{secret}"), b"trailing-lf\n", Control),
            (header("{secret}"), b"nul\0byte-inside", Control),
            (header("{secret}"), b"delete\x7fcharacter", Control),
            (header("{secret}"), b" leading-space", OuterSpace),
            (header("{secret}"), b"trailing-space ", OuterSpace),
            (header("{secret}"), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
            (header("no placeholder"), b"s3cr3t-key", Template),
            (header("{secret}{secret}"), b"s3cr3t-key", Template),
            (query(), b"line\nfeed-inside", Control),
            (query(), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
            (basic("a:b"), b"s3cr3t-key", UsernameColon),
            (basic("svc"), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
            (basic("svc"), b"line\nfeed-inside", Control),
            (basic("sv\nc"), b"s3cr3t-key", Control),
        ];
        for (place, secret, expected) in cases {
            assert_eq!(compose(&place, secret).err(), Some(expected), "{place:?}");
        }
    }

    fn choice(credentials: Vec<Credential>, server_slots: Vec<SlotName>, mode: Mode, passthrough: &[&str]) -> Choice {
        let binding = Binding {
            id: "b".into(),
            mode,
            owner: String::new(),
            environment: String::new(),
            servers: Vec::new(),
            principals: None,
            hosts: Vec::new(),
            credentials,
            passthrough: passthrough.iter().map(|name| (*name).to_owned()).collect(),
        };
        Choice { bindings: vec![binding.into()], server_slots }
    }

    fn slots() -> Vec<SlotName> {
        vec![
            SlotName::Header("X-Api-Key".into()),
            SlotName::Header("Authorization".into()),
            SlotName::Header("x-other".into()),
            SlotName::Query("apiKey".into()),
        ]
    }

    #[tokio::test]
    async fn every_place_that_is_not_filled_is_emptied() {
        let credentials = vec![Credential::new(header("{secret}"), source())];
        let choice = choice(credentials, slots(), Mode::ServiceAccount, &[]);
        let injection = inject(&choice, None, &Store(b"s3cr3t-key")).await.unwrap_or_else(|_| panic!());
        let (headers, parameters) = injection.removals();
        assert_eq!(headers.iter().filter(|name| *name == "authorization").count(), 1);
        assert!(headers.contains(&"x-other".to_owned()) && headers.contains(&"cookie".to_owned()));
        assert!(!headers.contains(&"x-api-key".to_owned()), "a place that is set must not be removed after it");
        assert_eq!(parameters, ["apiKey"]);
    }

    #[tokio::test]
    async fn a_filled_authorization_header_is_not_stripped() {
        let credentials = vec![Credential::new(basic("svc"), source())];
        let choice = choice(credentials, slots(), Mode::ServiceAccount, &[]);
        let injection = inject(&choice, None, &Store(b"s3cr3t-key")).await.unwrap_or_else(|_| panic!());
        assert!(!injection.removals().0.contains(&"authorization".to_owned()));
    }

    #[tokio::test]
    async fn passthrough_never_lets_the_client_s_token_through() {
        let choice = choice(Vec::new(), slots(), Mode::Passthrough, &["X-Other", "Authorization", "Cookie"]);
        let injection = inject(&choice, None, &Store(b"")).await.unwrap_or_else(|_| panic!());
        let (headers, _) = injection.removals();
        assert!(!headers.contains(&"x-other".to_owned()));
        assert!(headers.contains(&"authorization".to_owned()) && headers.contains(&"cookie".to_owned()));
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_given_up() {
        let credentials = vec![Credential::new(header("{secret}"), source())];
        let choice = choice(credentials, Vec::new(), Mode::ServiceAccount, &[]);
        let denial = inject(&choice, None, &Stuck).await.err().unwrap();
        assert_eq!(denial.reason, Reason::CredentialUnavailable);
    }

    #[tokio::test]
    async fn a_respelled_parameter_is_refused_before_any_secret_is_read() {
        let choice = choice(Vec::new(), slots(), Mode::None, &[]);
        let denial = inject(&choice, Some("api%4bey=x"), &Stuck).await.err().unwrap();
        assert_eq!(denial.reason, Reason::InvalidRequest);
    }
}
