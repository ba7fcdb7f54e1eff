//! What must not leave in a request, whoever wrote it there: a brokered secret to a host that it is not bound to, another
//! binding's placeholder, and what looks like a credential.

mod known;

use std::sync::Arc;
use std::time::Duration;

use keyward_contract::json::{Limits, Value, parse};
use keyward_contract::mcp::mirrored;
use keyward_contract::patterns::{Action, Finding, Guard};
use keyward_contract::reason::Reason;
use keyward_contract::scrub::Scrubber;

use crate::binding::{Binding, Catalogue};
use crate::caller::Caller;
use crate::credential::{Credential, Material, Outgoing, decoded};
use crate::decision::{Denial, Stage};
use crate::perimeter::authority::Authority;
use crate::sources::Sources;

pub use known::Known;

/// How long reading the local secrets may take altogether.
const LOCAL_TIMEOUT: Duration = Duration::from_millis(500);

/// How much is looked at in one go.
const SHORT_BYTES: usize = 2048;
/// What is between (ASCII's unit separator; no header holds it).
const SEPARATOR: u8 = 0x1f;

/// The values of `Content-Encoding` that leave a body readable.
const PLAIN_CODINGS: [&str; 3] = ["", "identity", "aws-chunked"];

/// What is looked for in the requests and the answers of a server entry.
#[derive(Clone)]
pub struct Rules {
    /// In requests.
    pub arguments: Guard,
    /// In answers, as the filter reads it; none where nothing is looked for.
    pub responses: Option<String>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { arguments: Guard::new(Action::Off, &[]), responses: None }
    }
}

/// Notes the secrets of a configuration that lie on this machine, so that they are known before they are used. No request goes
/// on before that was done once, within [`LOCAL_TIMEOUT`]; later looks hold up only the one who takes them.
pub async fn note_local(catalogue: &Catalogue, revision: &str, sources: &Arc<Sources>) {
    let known = sources.secrets.known();
    let _turn = if known.was_read(revision) { None } else { Some(known.first_read().await) };
    if !known.is_due(revision) {
        return;
    }
    let nobody = Caller::none("");
    let reads = async {
        for binding in catalogue.bindings() {
            for source in &binding.local_secrets {
                // What cannot be had now cannot leave either.
                if let Ok(secret) = sources.secrets.get(source, &nobody).await {
                    known.note(&binding.id, &binding.hosts, None, &secret.value);
                    let forms = binding.credentials.iter().flat_map(|own| decoded(own, secret.value.expose()));
                    forms.for_each(|form| known.note(&binding.id, &binding.hosts, None, &Arc::new(form)));
                }
            }
        }
    };
    let _ = tokio::time::timeout(LOCAL_TIMEOUT, reads).await;
    known.note_read(revision);
}

/// Notes the secrets of a material that is used now, for this principal; none where it is everybody's.
pub fn note(
    binding: &Binding,
    credential: &Arc<dyn Credential>,
    material: &Material,
    holder: Option<&str>,
    known: &Known,
) {
    for secret in material.secrets() {
        known.note(&binding.id, &binding.hosts, holder, secret);
        for form in decoded(credential, secret.expose()) {
            known.note(&binding.id, &binding.hosts, holder, &Arc::new(form));
        }
    }
}

/// Refuses a request that holds a secret which is bound elsewhere, in any of the forms of `keyward_contract::encodings`.
///
/// # Errors
/// Names the binding, for the operator.
pub fn check_secrets(outgoing: &Outgoing<'_>, known: &Known) -> Result<(), Denial> {
    let Ok(authority) = Authority::parse(outgoing.authority()) else { return Ok(()) };
    match known.find(&texts(outgoing).slices(), &authority) {
        Some(binding) => {
            Err(denial(format!("the request holds a secret of binding `{binding}`, which is not for `{authority}`")))
        }
        None => Ok(()),
    }
}

/// Refuses an encoded body, in which nothing can be found, where something is looked for: the shapes of credentials, secrets
/// that are bound elsewhere, other bindings' placeholders.
///
/// # Errors
/// The body is encoded.
pub fn check_encoding(
    outgoing: &Outgoing<'_>,
    known: &Known,
    placeholders: &[String],
    guard: &Guard,
) -> Result<(), Denial> {
    let Some(encoding) = outgoing.header("content-encoding") else { return Ok(()) };
    // What AWS calls an encoding are chunks with the bytes as they are.
    let is_plain = |coding: &str| PLAIN_CODINGS.iter().any(|plain| coding.trim().eq_ignore_ascii_case(plain));
    if outgoing.body().is_empty() || encoding.split(',').all(is_plain) {
        return Ok(());
    }
    let elsewhere = || Authority::parse(outgoing.authority()).is_ok_and(|authority| known.has_strangers(&authority));
    if guard.is_off() && placeholders.is_empty() && !elsewhere() {
        return Ok(());
    }
    let cause = "the body is encoded (`Content-Encoding`), so that it cannot be looked through for secrets";
    Err(Denial::new(Stage::Credential, Reason::InvalidRequest, cause))
}

/// Refuses a request that holds the placeholder of a binding that does not serve it.
///
/// # Errors
/// Names the placeholder, for the operator.
pub fn check_placeholders(outgoing: &Outgoing<'_>, placeholders: &[String]) -> Result<(), Denial> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let all = Scrubber::new(placeholders);
    for text in texts(outgoing).slices().into_iter().filter(|text| all.scrub_value(text).is_some()) {
        let holds = |placeholder: &&String| Scrubber::new(&[placeholder.as_str()]).scrub_value(text).is_some();
        if let Some(placeholder) = placeholders.iter().find(holds) {
            return Err(denial(format!(
                "the request holds the placeholder `{placeholder}`, whose binding does not serve it"
            )));
        }
    }
    Ok(())
}

/// Looks for what has the shape of a credential in path, query and body, and in the headers that mirror the body, and overwrites
/// in the body what is to be masked. What stands in a mirror cannot be masked: server and body would disagree. Other headers are
/// not looked through: programs write them, not models, and session ids and the like are tokens by right.
///
/// # Errors
/// One that must not leave, or must be masked where it cannot be.
pub fn check_patterns(outgoing: &mut Outgoing<'_>, guard: &Guard) -> Result<Finding, Denial> {
    let mut finding = Finding::default();
    if guard.is_off() {
        return Ok(finding);
    }
    let body = guard.inspect(outgoing.body());
    let mut target = guard.inspect(outgoing.target().as_bytes()).finding;
    if let Some(decoded) = percent_decoded(outgoing.target()) {
        target.add(guard.inspect(&decoded).finding);
    }
    let mut strings = Finding::default();
    if outgoing.body().contains(&b'\\') {
        let limits = Limits { max_bytes: outgoing.body().len(), ..Limits::default() };
        if let Ok(value) = parse(outgoing.body(), &limits) {
            visit(&value, &mut |text| strings.add(guard.inspect(text.as_bytes()).finding));
        }
    }
    let mut mirrors = Finding::default();
    for text in outgoing.headers().filter_map(|(name, value)| mirrored(name, value)) {
        mirrors.add(guard.inspect(text.as_bytes()).finding);
    }
    // What only shows without its escapes, or stands in the target or a mirror, cannot be overwritten in its place.
    let is_hidden = target.masked > 0 || mirrors.masked > 0 || strings.masked > body.finding.masked;
    finding.add(body.finding);
    finding.add(Finding { masked: 0, ..mirrors });
    finding.add(Finding { masked: 0, ..target });
    finding.add(Finding { masked: 0, ..strings });
    if finding.blocked || is_hidden {
        let names: Vec<&str> = finding.names().collect();
        return Err(denial(format!("the request holds what looks like a credential: {}", names.join(", "))));
    }
    if let Some(masked) = body.masked {
        outgoing.set_body(masked);
    }
    Ok(finding)
}

fn denial(cause: String) -> Denial {
    Denial::new(Stage::Credential, Reason::SecretInRequest, cause)
}

/// Everything that leaves: authority, target, header names and values, body. What is short stands together, apart by a byte that no
/// form of a secret holds: looking at each by itself would cost more than the look.
struct Texts<'a> {
    short: Vec<u8>,
    long: Vec<&'a [u8]>,
}

impl<'a> Texts<'a> {
    fn slices(&'a self) -> Vec<&'a [u8]> {
        self.long.iter().copied().chain([self.short.as_slice()]).collect()
    }
}

fn texts<'a>(outgoing: &'a Outgoing<'_>) -> Texts<'a> {
    let headers = outgoing.headers().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let mut texts = Texts { short: Vec::with_capacity(SHORT_BYTES), long: vec![outgoing.body()] };
    for text in [outgoing.authority().as_bytes(), outgoing.target().as_bytes()].into_iter().chain(headers) {
        if texts.short.len() + text.len() < SHORT_BYTES {
            texts.short.extend_from_slice(text);
            texts.short.push(SEPARATOR);
        } else {
            texts.long.push(text);
        }
    }
    texts
}

fn visit(value: &Value<'_>, visitor: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visitor(text),
        Value::Array(elements) => elements.iter().for_each(|element| visit(element, visitor)),
        Value::Object(object) => object.iter().for_each(|(name, member)| {
            visitor(name);
            visit(member, visitor);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    text.contains('%').then(|| crate::credential::query::decode(text))
}

#[cfg(test)]
mod tests;
