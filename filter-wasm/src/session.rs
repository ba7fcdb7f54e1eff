//! The session id of an answer: sealed before the client sees it, as the server said.

use keyward_contract::session::{self, Directive, NONCE_BYTES, SESSION_ID_HEADER};
use proxy_wasm::types::MapType;
use zeroize::Zeroizing;

use crate::headers::HeaderList;
use crate::host;

/// What becomes of the session id of one answer.
pub(crate) struct Session {
    directive: Directive,
    /// The session of the request: the id that the upstream got, and the one that the client wrote.
    own: Option<(Zeroizing<Vec<u8>>, Vec<u8>)>,
}

/// Why an answer with a session id must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// The upstream names more than one session.
    #[error("it names more than one session")]
    Several,
    /// The id cannot be sealed.
    #[error(transparent)]
    Seal(#[from] session::SealError),
    /// The proxy has no randomness, or its headers cannot be changed.
    #[error("its session id could not be replaced")]
    Host,
}

// === impl Session ===

impl Session {
    /// What the server said of the session of this request, and the id that it gave for the upstream.
    pub(crate) fn new(directive: Directive, request: &HeaderList, upstream_id: Option<&[u8]>) -> Session {
        let client_id = request.first(SESSION_ID_HEADER);
        let own = upstream_id.zip(client_id).map(|(up, down)| (Zeroizing::new(up.to_vec()), down.to_vec()));
        Session { directive, own }
    }

    /// Replaces or removes the id in the headers of the answer.
    pub(crate) fn on_headers(&self) -> Result<(), SessionError> {
        let headers = host::headers(MapType::HttpResponseHeaders).map_err(|_| SessionError::Host)?;
        let mut ids = headers.iter().filter(|(name, _)| *name == SESSION_ID_HEADER).map(|(_, value)| value);
        let Some(id) = ids.next() else { return Ok(()) };
        if ids.next().is_some() {
            return Err(SessionError::Several);
        }
        let own = self.own.as_ref().filter(|(upstream_id, _)| upstream_id.as_slice() == id);
        let changed = match (&self.directive, own) {
            (Directive::Seal(..) | Directive::Keep, Some((_, client_id))) => {
                host::set_header(MapType::HttpResponseHeaders, SESSION_ID_HEADER, client_id)
            }
            (Directive::Seal(key, span), None) => {
                let mut nonce = [0_u8; NONCE_BYTES];
                getrandom::fill(&mut nonce).map_err(|_| SessionError::Host)?;
                let sealed = session::seal(key, &nonce, *span, id)?;
                host::set_header(MapType::HttpResponseHeaders, SESSION_ID_HEADER, sealed.as_bytes())
            }
            (Directive::Keep | Directive::Drop, _) => {
                host::remove_header(MapType::HttpResponseHeaders, SESSION_ID_HEADER)
            }
        };
        changed.map_err(|_| SessionError::Host)
    }

    /// An id among the trailers is none: it goes.
    pub(crate) fn on_trailers() -> Result<(), SessionError> {
        host::remove_header(MapType::HttpResponseTrailers, SESSION_ID_HEADER).map_err(|_| SessionError::Host)
    }
}
