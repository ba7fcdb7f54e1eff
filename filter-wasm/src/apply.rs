//! Applies the server's decision to the request.

use keyward_contract::check::{
    BODY_HEADER, DeniedHttpResponse, GUARD_HEADER, INTERNAL_HEADER_PREFIX, OkHttpResponse, PARTIAL_HEADERS,
    SCRUB_HEADER, SESSION_HEADER, STRIPPED_HEADERS,
};
use keyward_contract::patterns::Guard;
use keyward_contract::query;
use keyward_contract::revocation::{SUBJECTS_HEADER, SUBJECTS_MAX, Tag, tags};
use keyward_contract::scrub::Scrubber;
use keyward_contract::session::{Directive, SESSION_ID_HEADER};
use proxy_wasm::types::{BufferType, MapType};
use zeroize::{Zeroize, Zeroizing};

use crate::headers::HeaderList;
use crate::host;
use crate::session::Session;

/// Envoy's default access log shows this header in place of the path.
const ORIGINAL_PATH: &str = "x-envoy-original-path";

/// What is to be known of the response to a request that was changed.
pub(crate) struct Applied {
    /// What to scrub from it.
    pub(crate) scrubber: Option<Scrubber>,
    /// Which credentials of known shape to look for in it.
    pub(crate) guard: Option<Guard>,
    /// What becomes of its session id; without, it passes as it is.
    pub(crate) session: Option<Session>,
    /// Envoy chooses the route again for a changed request, perhaps another one: `:authority` or `:path` is not what it was.
    pub(crate) may_reroute: bool,
    /// What can be revoked that the request rests on.
    pub(crate) subjects: Vec<Tag>,
}

/// Why a decision could not be applied. The request must not go on then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// A header or the body could not be changed.
    #[error(transparent)]
    Host(#[from] host::HostError),
    /// The server names a rule that this filter does not know.
    #[error("it names a rule for answers that this filter does not know: server and filter are of different versions")]
    Guard,
    /// The server says of the session what this filter does not know.
    #[error("it says of the session what this filter does not know: server and filter are of different versions")]
    Session,
    /// What the request rests on cannot be read.
    #[error(
        "what can be revoked that the request rests on cannot be read: server and filter are of different versions"
    )]
    Subjects,
}

/// Changes the request as the server said.
///
/// ## Errors
///
/// When it could not be changed, or the answer could not be guarded. The request must not go on then.
pub(crate) fn allow(request: &HeaderList, decision: OkHttpResponse) -> Result<Applied, ApplyError> {
    let OkHttpResponse { headers, headers_to_remove, query_parameters_to_set, query_parameters_to_remove } = decision;
    let mut set: Vec<(String, Zeroizing<Vec<u8>>)> = Vec::with_capacity(headers.len());
    let mut scrub: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    let mut body: Option<Zeroizing<Vec<u8>>> = None;
    let mut guard: Option<Guard> = None;
    let mut directive: Option<Directive> = None;
    let mut subjects: Vec<Tag> = Vec::new();
    for header in headers.into_iter().filter_map(|option| option.header) {
        let value = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
        if header.key == SCRUB_HEADER {
            scrub.push(Zeroizing::new(value));
        } else if header.key == BODY_HEADER {
            body = Some(Zeroizing::new(value));
        } else if header.key == GUARD_HEADER {
            let text = std::str::from_utf8(&value).map_err(|_| ApplyError::Guard)?;
            guard = Some(Guard::parse(text).ok_or(ApplyError::Guard)?);
        } else if header.key == SESSION_HEADER {
            let value = Zeroizing::new(value);
            let text = std::str::from_utf8(&value).map_err(|_| ApplyError::Session)?;
            directive = Some(Directive::parse(text).ok_or(ApplyError::Session)?);
        } else if header.key == SUBJECTS_HEADER {
            subjects = tags(&value).ok_or(ApplyError::Subjects)?.take(SUBJECTS_MAX + 1).collect();
            if subjects.len() > SUBJECTS_MAX {
                return Err(ApplyError::Subjects);
            }
        } else {
            set.push((header.key.to_ascii_lowercase(), Zeroizing::new(value)));
        }
    }

    let session = directive.map(|directive| {
        let upstream_id = set.iter().find(|(name, _)| name == SESSION_ID_HEADER).map(|(_, value)| value.as_slice());
        Session::new(directive, request, upstream_id)
    });
    // What is looked through must be whole and plain.
    let reads_answer = !scrub.is_empty() || guard.is_some();
    let mut removed: Vec<&str> = Vec::new();
    for (name, _) in request.iter() {
        let unwanted = STRIPPED_HEADERS.contains(&name)
            || name.starts_with(INTERNAL_HEADER_PREFIX)
            || headers_to_remove.iter().any(|other| other.eq_ignore_ascii_case(name))
            || (reads_answer && PARTIAL_HEADERS.contains(&name));
        if unwanted && !name.starts_with(':') && !removed.contains(&name) {
            removed.push(name);
            host::remove_header(MapType::HttpRequestHeaders, name)?;
        }
    }
    if reads_answer {
        host::set_header(MapType::HttpRequestHeaders, "accept-encoding", b"identity")?;
    }
    let mut may_reroute = false;
    for (name, value) in &set {
        if name.starts_with(':') {
            if request.first(name) == Some(value.as_slice()) {
                continue;
            }
            may_reroute = true;
            if name == ":path" {
                keep_original_path(request)?;
            }
        }
        host::set_header(MapType::HttpRequestHeaders, name, value)?;
    }
    if let Some(body) = body {
        // Envoy refuses a request whose body is not as long as it says.
        host::set_header(MapType::HttpRequestHeaders, "content-length", body.len().to_string().as_bytes())?;
        host::replace_buffer(BufferType::HttpRequestBody, &body)?;
    }
    may_reroute |= edit_query(request, query_parameters_to_set, &query_parameters_to_remove)?;
    Ok(Applied { scrubber: reads_answer.then(|| Scrubber::new(&scrub)), guard, session, may_reroute, subjects })
}

/// Sets and removes query parameters; whether the path is another now.
fn edit_query(
    request: &HeaderList,
    mut set: Vec<keyward_contract::check::QueryParameter>,
    remove: &[String],
) -> host::Result<bool> {
    let path = request.joined(":path").unwrap_or_default();
    if set.is_empty() && (remove.is_empty() || !path.contains('?')) {
        return Ok(false);
    }
    let pairs: Vec<(&str, &str)> = set.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    let names: Vec<&str> = remove.iter().map(String::as_str).collect();
    let rewritten = Zeroizing::new(query::rewrite(&path, &pairs, &names));
    if !set.is_empty() {
        keep_original_path(request)?;
    }
    host::set_header(MapType::HttpRequestHeaders, ":path", rewritten.as_bytes())?;
    set.iter_mut().for_each(|pair| pair.value.zeroize());
    Ok(true)
}

/// Shows the access log the client's path in place of one that holds a secret, without the query: a client may have put
/// anything there.
fn keep_original_path(request: &HeaderList) -> host::Result<()> {
    let path = request.joined(":path").unwrap_or_default();
    let original = path.split('?').next().unwrap_or_default();
    host::set_header(MapType::HttpRequestHeaders, ORIGINAL_PATH, original.as_bytes())
}

/// Answers the request as the server said. Without a usable status the answer is 403.
pub(crate) fn deny(decision: &DeniedHttpResponse) {
    let status = decision.status.as_ref().map_or(403, |status| status.code);
    let status = u32::try_from(status).ok().filter(|status| (200..600).contains(status)).unwrap_or(403);
    let headers: Vec<(&str, &[u8])> = decision
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .filter(|header| !header.key.starts_with(':'))
        .map(|header| {
            let value = if header.value.is_empty() { header.raw_value.as_slice() } else { header.value.as_bytes() };
            (header.key.as_str(), value)
        })
        .collect();
    // When the answer cannot be sent the request stays paused, and Envoy's stream timeout ends it.
    let _ = host::answer(status, "keyward_denied", &headers, decision.body.as_bytes());
}
