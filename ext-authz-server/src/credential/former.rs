//! What each binding used before: a value that was replaced is still looked for in answers for a while, whatever replaced it:
//! another value behind the same reference, another reference, another key of the same person.
//!
//! The owner is the binding, the places its credential fills and, where the value is a caller's own, that caller: one person's
//! values go along with no other's requests. Bounded; what nobody uses for a day is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Credential, Material};
use crate::caller::{Caller, is_template};
use crate::freshness::{Digest, Key, OVERLAP};
use crate::secret::SecretBytes;
use crate::sources::Sources;

/// The most owners; of more, those that were not used for the longest time go.
const CAPACITY: usize = 8192;
/// The most replaced values of one owner.
const MAX_RETIRED: usize = 8;
/// How long the value of an owner is kept that nobody uses.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// The values in use and those they replaced less than [`OVERLAP`] ago, by owner. They are wiped when they are dropped.
#[derive(Default)]
pub struct Former(Mutex<HashMap<Digest, Owner>>);

struct Owner {
    current: Vec<Arc<SecretBytes>>,
    retired: Vec<(Arc<SecretBytes>, Instant)>,
    used: Instant,
}

// === impl Former ===

impl Former {
    /// Notes what a credential of a binding uses now, and returns what it used before.
    pub fn note(
        &self,
        binding: &str,
        credential: &Arc<dyn Credential>,
        caller: &Caller,
        material: &Material,
    ) -> Vec<Arc<SecretBytes>> {
        let (owner, now) = (owner(binding, credential, caller), Instant::now());
        let mut owners = self.lock();
        if let Some(owner) = owners.get_mut(&owner) {
            return owner.note(material, now);
        }
        if owners.len() >= CAPACITY {
            make_room(&mut owners);
        }
        let current = material.secrets().into_iter().cloned().collect();
        owners.insert(owner, Owner { current, retired: Vec::new(), used: now });
        Vec::new()
    }

    /// Drops what has ended, and what nobody used for a day.
    pub fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    fn sweep_at(&self, now: Instant) {
        self.lock().retain(|_, owner| {
            owner.retired.retain(|(_, until)| now < *until);
            now.saturating_duration_since(owner.used) < FORGET
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Owner ===

impl Owner {
    fn note(&mut self, material: &Material, now: Instant) -> Vec<Arc<SecretBytes>> {
        self.used = now;
        let secrets = material.secrets();
        let same = |one: &Arc<SecretBytes>, other: &Arc<SecretBytes>| Arc::ptr_eq(one, other) || one.ct_eq(other);
        let is_current = |value: &Arc<SecretBytes>| secrets.iter().any(|secret| same(secret, value));
        self.retired.retain(|(value, until)| now < *until && !is_current(value));
        for before in std::mem::take(&mut self.current) {
            if !is_current(&before) {
                self.retired.push((before, now + OVERLAP));
            }
        }
        let excess = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..excess);
        self.current = secrets.into_iter().cloned().collect();
        self.retired.iter().map(|(value, _)| value.clone()).collect()
    }
}

/// Whose value it is.
fn owner(binding: &str, credential: &Arc<dyn Credential>, caller: &Caller) -> Digest {
    let mut key = Key::new("former", caller.tenant()).with("binding", binding);
    for place in credential.places() {
        key = key.with("place", place.to_string());
    }
    let kept = Sources::key(credential, caller);
    // A session of AWS tells its callers apart by what it says of them.
    let is_one_callers = |kept: &Key| kept.part("principal").is_some() || kept.part("session").is_some();
    let is_personal = kept.as_ref().is_some_and(is_one_callers)
        || credential.provider().is_some()
        || credential.references().iter().any(|reference| is_template(reference));
    if is_personal {
        // The principal's key tells issuer, subject and agent.
        key = key
            .with("principal", &caller.principal.key)
            .with("environment", &caller.environment)
            .with("server", &caller.server);
    }
    key.digest()
}

/// Forgets a sixteenth of the owners, those that were not used for the longest time.
fn make_room(owners: &mut HashMap<Digest, Owner>) {
    let mut used: Vec<(Instant, Digest)> = owners.iter().map(|(digest, owner)| (owner.used, *digest)).collect();
    used.sort_unstable();
    for (_, digest) in used.into_iter().take(CAPACITY / 16) {
        owners.remove(&digest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::*;
    use crate::config::{HeaderCredential, SecretSource};
    use crate::identity::Principal;

    fn credential(name: &str, reference: &str) -> Arc<dyn Credential> {
        let secret = SecretSource { reference: reference.into(), json_key: None, trim_newline: false };
        Arc::new(Header(HeaderCredential { name: name.into(), template: "{secret}".into(), secret }))
    }

    fn caller(tenant: &str, user: &str) -> Caller {
        let principal =
            Principal { key: user.into(), subject: user.into(), tenant: tenant.into(), ..Principal::nobody() };
        Caller { principal: Arc::new(principal), ..Caller::none("test") }
    }

    fn note(former: &Former, credential: &Arc<dyn Credential>, caller: &Caller, value: &str) -> Vec<String> {
        let material = Material::new().secret("secret", value.as_bytes().to_vec());
        let before = former.note("binding", credential, caller, &material);
        before.iter().map(|value| String::from_utf8(value.expose().to_vec()).unwrap()).collect()
    }

    #[test]
    fn another_reference_or_another_key_of_a_person_leaves_the_value_before_to_be_scrubbed() {
        let alice = caller("acme", "alice");
        for (before, after) in
            [("env://OLD", "env://NEW"), ("grant://mail", "grant://mail"), ("a://{user}", "b://{user}")]
        {
            let former = Former::default();
            let (before, after) = (credential("x-api-key", before), credential("x-api-key", after));
            assert!(note(&former, &before, &alice, "one").is_empty());
            assert!(note(&former, &before, &alice, "one").is_empty());
            assert_eq!(note(&former, &after, &alice, "two"), ["one"]);
            assert_eq!(note(&former, &after, &alice, "two"), ["one"]);
            // Rolled back: what is in use is none of the past.
            assert_eq!(note(&former, &before, &alice, "one"), ["two"]);
            let later = Instant::now() + OVERLAP + Duration::from_secs(1);
            former.sweep_at(later);
            assert!(note(&former, &before, &alice, "one").is_empty(), "nothing is scrubbed for ever");
        }
    }

    #[test]
    fn a_person_s_values_are_that_person_s_and_a_service_s_are_everybody_s_of_the_tenant() {
        let (alice, bob, other) = (caller("acme", "alice"), caller("acme", "bob"), caller("other", "alice"));
        let former = Former::default();
        let own = credential("x-api-key", "grant://mail");
        note(&former, &own, &alice, "one");
        assert!(note(&former, &own, &bob, "two").is_empty() && note(&former, &own, &other, "three").is_empty());
        assert_eq!(note(&former, &own, &alice, "four"), ["one"]);
        let shared = credential("x-other-key", "env://KEY");
        assert!(note(&former, &shared, &alice, "one").is_empty(), "another place is another owner");
        assert_eq!(note(&former, &shared, &bob, "two"), ["one"]);
        assert!(note(&former, &shared, &other, "three").is_empty());
    }

    #[test]
    fn a_session_of_aws_is_its_callers() {
        let role = serde_json::json!({
            "regions": ["eu-central-1"],
            "services": ["s3"],
            "source": {
                "type": "role",
                "role_arn": "arn:aws:iam::111122223333:role/agents",
                "external_id": {"type": "none"},
                "session": {"name": "{user}"},
            },
        });
        let aws = super::super::aws::Aws::new(serde_json::from_value(role).unwrap());
        let (own, former): (Arc<dyn Credential>, _) = (Arc::new(aws), Former::default());
        note(&former, &own, &caller("acme", "alice"), "one");
        assert!(note(&former, &own, &caller("acme", "bob"), "two").is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let former = Former::default();
        let (own, alice) = (credential("x-api-key", "grant://mail"), caller("acme", "alice"));
        for number in 0..50 {
            assert!(note(&former, &own, &alice, &format!("value {number}")).len() <= MAX_RETIRED);
        }
        for number in 0..CAPACITY + 10 {
            note(&former, &own, &caller("acme", &number.to_string()), "value");
        }
        assert!(former.lock().len() <= CAPACITY);
        former.sweep_at(Instant::now() + FORGET);
        assert!(former.lock().is_empty());
    }
}
