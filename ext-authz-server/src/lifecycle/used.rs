//! What was had for which binding, so that it can be dropped when the binding is stopped.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::caller::{Caller, could_be};
use crate::config::Config;
use crate::credential::Credential;
use crate::freshness::{Digest, Freshness};
use crate::plan::Plan;
use crate::sources::Sources;
use crate::state::State;

/// The most traces of one binding; beyond them everything that is kept is dropped with it, what replicas share too.
const MAX_TRACES: usize = 16_384;

/// What was had, by binding.
#[derive(Default)]
pub struct Used(Mutex<HashMap<String, HashSet<Trace>>>);

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Trace {
    /// A material that was minted.
    Material(Digest),
    /// A content of a store: scheme, and what follows it.
    Content(String, String),
}

// === impl Used ===

impl Used {
    /// Notes what a credential of a binding was made of for this caller.
    pub fn note(&self, binding: &str, credential: &Arc<dyn Credential>, caller: &Caller) {
        let parts = credential.parts().iter().chain([credential]);
        let keys = parts.filter_map(|part| Sources::key(part, caller));
        let materials: Vec<Trace> = keys.map(|key| Trace::Material(key.digest())).collect();
        let content = |reference: String| {
            let (scheme, rest) = reference.split_once("://")?;
            Some(Trace::Content(scheme.to_owned(), caller.fill(rest).ok()?))
        };
        let contents = credential.references().into_iter().filter_map(content);
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = match used.get_mut(binding) {
            Some(own) => own,
            None => used.entry(binding.to_owned()).or_default(),
        };
        if own.len() < MAX_TRACES {
            own.extend(materials.into_iter().chain(contents));
        }
    }

    /// What was had for this binding and for none of those that serve; `None` where that was too much to remember.
    fn take(&self, binding: &str, serves: impl Fn(&str) -> bool) -> Option<Vec<Trace>> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = used.remove(binding).unwrap_or_default();
        if own.len() >= MAX_TRACES {
            return None;
        }
        let others: Vec<&HashSet<Trace>> = used.iter().filter(|(id, _)| serves(id)).map(|(_, traces)| traces).collect();
        Some(own.into_iter().filter(|trace| !others.iter().any(|other| other.contains(trace))).collect())
    }
}

/// Drops what is kept for a binding that does not serve any more, and gives back what stores lent for it alone. How much
/// that was is not known to the caller: the values are gone either way.
pub async fn unbind(id: &str, plan: &Plan, config: &Config) {
    let sources = plan.sources();
    let Some(state) = sources.secrets.state().get() else { return };
    let serves = |id: &str| plan.catalogue().serves_now(id);
    let freshness = sources.freshness();
    let references = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let bindings = config.bindings.iter().filter(|binding| wanted(&binding.id));
        let sources = bindings.flat_map(|binding| &binding.credentials).flat_map(|own| own.kind().secrets());
        sources.map(|(_, source)| source.reference.clone()).collect()
    };
    let in_use = references(&serves);
    let is_used = |reference: &str| in_use.iter().any(|template| could_be(template, reference));
    forget(id, state.book.used().take(id, serves), state, freshness, is_used).await;
    freshness.forget(&[("kind", "probed"), ("binding", id)]);
    sources.secrets.retain(&in_use).await;
}

/// Drops what was had, here and of what replicas share; everything where that was too much to remember.
async fn forget(
    id: &str,
    taken: Option<Vec<Trace>>,
    state: &State,
    freshness: &Freshness,
    is_used: impl Fn(&str) -> bool,
) {
    let dropped = match taken {
        None => {
            freshness.forget(&[]);
            state.forget_shared().await
        }
        Some(traces) => {
            let mut materials = Vec::new();
            for trace in traces {
                match trace {
                    Trace::Material(digest) => {
                        freshness.forget_digest(&digest);
                        materials.push(digest.to_string());
                    }
                    Trace::Content(scheme, rest) if !is_used(&format!("{scheme}://{rest}")) => {
                        freshness.forget(&[("kind", "secret"), ("store", &scheme), ("reference", &rest)]);
                    }
                    Trace::Content(..) => {}
                }
            }
            state.bindings.drop_material(&materials).await
        }
    };
    if let Err(error) = dropped {
        tracing::warn!(%error, binding = id, "what replicas share of a stopped binding could not be dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::config::{HeaderCredential, SecretSource};
    use crate::credential::Material;
    use crate::credential::header::Header;
    use crate::freshness::{Key, Shared as _};
    use crate::scratch::Scratch;
    use crate::secret::Secrets;

    fn header(reference: &str) -> Arc<dyn Credential> {
        let secret = SecretSource { reference: reference.into(), json_key: None, trim_newline: false };
        Arc::new(Header(HeaderCredential { name: "x".into(), template: "{secret}".into(), secret }))
    }

    #[test]
    fn what_another_binding_that_serves_uses_as_well_is_left_alone() {
        let used = Used::default();
        let nobody = Caller::none("test");
        let content = |rest: &str| Trace::Content("vault".into(), rest.into());
        for (binding, reference) in
            [("a", "vault://own"), ("a", "vault://shared"), ("a", "vault://kv/{environment}"), ("b", "vault://shared")]
        {
            used.note(binding, &header(reference), &nobody);
        }
        let mut taken = used.take("a", |id| id == "b").unwrap();
        taken.sort_by_key(|trace| format!("{trace:?}"));
        assert_eq!(taken, [content("kv/test"), content("own")]);
        assert_eq!(used.take("a", |_| true), Some(Vec::new()), "it was taken");
        used.note("a", &header("vault://shared"), &nobody);
        assert_eq!(used.take("a", |_| false), Some(vec![content("shared")]), "the other one does not serve either");
    }

    #[tokio::test]
    async fn of_too_much_to_remember_replicas_share_nothing_any_more() {
        let scratch = Scratch::new();
        scratch.write("kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        let config = serde_json::json!({"url": "sqlite::memory:", "encryption_keys": [{"ref": "file://kek"}]});
        let config: crate::config::Database = serde_json::from_value(config).unwrap();
        let state = State::open(&config, &Secrets::standard(scratch.path())).await.unwrap();
        let key = |name: &str| Key::new("oauth", "tenant").with("principal", "alice").with("provider", name);
        let material = Material::new().secret("access_token", b"a token".to_vec());
        let material = material.until(SystemTime::now() + Duration::from_secs(60));
        let is_there = async |name: &str| state.shared.take(&key(name)).await.unwrap().is_some();
        for name in ["mail", "calendar"] {
            let mark = state.shared.mark().await.unwrap();
            assert!(state.shared.put(&key(name), &material, mark).await.unwrap());
        }
        let mail = Trace::Material(key("mail").digest());
        forget("a", Some(vec![mail]), &state, &Freshness::default(), |_| false).await;
        assert!(!is_there("mail").await && is_there("calendar").await, "what was had for it, and nothing else");
        forget("a", None, &state, &Freshness::default(), |_| false).await;
        assert!(!is_there("calendar").await);
    }

    #[test]
    fn more_than_can_be_remembered_is_everything() {
        let used = Used::default();
        let nobody = Caller::none("test");
        for number in 0..=MAX_TRACES {
            used.note("a", &header(&format!("vault://{number}")), &nobody);
        }
        assert_eq!(used.take("a", |_| true), None);
    }
}
