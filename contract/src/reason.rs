//! Every reason for which Keyward itself answers a request: the stable code an agent sees, the HTTP status and the
//! JSON-RPC error code that go with it.
//!
//! The codes are part of the public contract and are uniform on purpose: an unknown tool and a forbidden one both read
//! [`Reason::NotAllowed`], so that a denial tells an agent nothing about what exists. The operator finds the stage, the
//! rule and the cause in the audit record, under the decision id that the answer carries.

/// Why a request was answered by Keyward instead of by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request carries no access token.
    Unauthenticated,
    /// The access token was refused: signature, issuer, audience, lifetime or algorithm.
    InvalidToken,
    /// The proof that the caller holds the token's key is missing or was refused (RFC 9449, RFC 8705).
    InvalidProof,
    /// A proof with the nonce that the answer carries is wanted (RFC 9449 section 8).
    UseDpopNonce,
    /// The token lacks scopes; the challenge names all that the operation needs.
    InsufficientScope,
    /// Access of this principal, agent, binding or tenant was revoked.
    AccessRevoked,
    /// The MCP session is unknown, is somebody else's, or has ended.
    SessionNotFound,
    /// Too many requests; `Retry-After` says when to try again.
    Throttled,
    /// The policy does not allow this principal this operation, or there is no such operation.
    NotAllowed,
    /// The destination is not registered, or the credential is not bound to it.
    DestinationDenied,
    /// The credential could not be had: missing secret, store unreachable, value unusable.
    CredentialUnavailable,
    /// The credential is bound to this use but not in service: its binding is not approved and activated, disabled or revoked.
    BindingInactive,
    /// The credential is a person's own and the person has not connected the account, or has to connect it again.
    ConsentRequired,
    /// No decision could be had in time from the server.
    DecisionUnavailable,
    /// The server cannot accept the request now: its audit queue or its concurrency bound is full.
    Overloaded,
    /// Envoy's configuration does not let the filter enforce; see the operator's log.
    FilterMisconfigured,
    /// The request body did not arrive in time.
    RequestTimeout,
    /// The upstream's answer could not be scrubbed, so it was withheld.
    ResponseWithheld,
    /// Another element of the same batch was denied, so this one was not sent.
    BatchMemberDenied,
    /// The request holds a secret that may not go where the request goes, or what looks like one.
    SecretInRequest,
    /// The request body, a header or a nesting is larger than the configured limit.
    RequestTooLarge,
    /// The request body is not strict JSON.
    InvalidJson,
    /// The request is JSON but not a valid MCP message of its revision.
    InvalidRequest,
    /// The parameters lack what the MCP revision requires, or hold it in the wrong form.
    InvalidParams,
    /// The MCP headers and the body disagree, or one of them is missing or malformed.
    HeaderMismatch,
    /// The MCP revision is not one that Keyward speaks.
    UnsupportedRevision,
    /// The HTTP method does not exist in this MCP revision.
    MethodNotAllowed,
}

/// One line of the public table.
#[derive(Clone, Copy, Debug)]
struct Row {
    code: &'static str,
    http_status: u16,
    plain_status: u16,
    json_rpc: i32,
    message: &'static str,
}

impl Reason {
    /// All reasons, in the order of the documentation.
    pub const ALL: [Reason; 27] = [
        Reason::Unauthenticated,
        Reason::InvalidToken,
        Reason::InvalidProof,
        Reason::UseDpopNonce,
        Reason::InsufficientScope,
        Reason::AccessRevoked,
        Reason::SessionNotFound,
        Reason::Throttled,
        Reason::NotAllowed,
        Reason::DestinationDenied,
        Reason::CredentialUnavailable,
        Reason::BindingInactive,
        Reason::ConsentRequired,
        Reason::DecisionUnavailable,
        Reason::Overloaded,
        Reason::FilterMisconfigured,
        Reason::RequestTimeout,
        Reason::ResponseWithheld,
        Reason::BatchMemberDenied,
        Reason::SecretInRequest,
        Reason::RequestTooLarge,
        Reason::InvalidJson,
        Reason::InvalidRequest,
        Reason::InvalidParams,
        Reason::HeaderMismatch,
        Reason::UnsupportedRevision,
        Reason::MethodNotAllowed,
    ];

    /// The stable, machine-readable code, for example `not_allowed`.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// The HTTP status of the answer to an MCP request. Denials answer 200 with a JSON-RPC error, because the official
    /// SDK clients tear the connection down on a 4xx.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().http_status
    }

    /// The HTTP status where there is no JSON-RPC request to answer: plain HTTP upstreams, notifications, streams.
    #[must_use]
    pub fn plain_status(self) -> u16 {
        self.row().plain_status
    }

    /// The JSON-RPC error code: -32000 to -32019 are Keyward's own, the others are the specification's.
    #[must_use]
    pub fn json_rpc(self) -> i32 {
        self.row().json_rpc
    }

    /// One fixed sentence for a person. It never names what was asked for.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.row().message
    }

    /// The reason with this code, if there is one.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.code() == code)
    }

    const fn row(self) -> Row {
        const fn row(code: &'static str, http: u16, plain: u16, json_rpc: i32, message: &'static str) -> Row {
            Row { code, http_status: http, plain_status: plain, json_rpc, message }
        }
        match self {
            Reason::Unauthenticated => row("unauthenticated", 401, 401, -32001, "an access token is required"),
            Reason::InvalidToken => row("invalid_token", 401, 401, -32001, "the access token was refused"),
            Reason::InvalidProof => row("invalid_proof", 401, 401, -32001, "the proof of possession was refused"),
            Reason::UseDpopNonce => row("use_dpop_nonce", 401, 401, -32001, "a proof with a nonce is required"),
            Reason::InsufficientScope => row("insufficient_scope", 403, 403, -32019, "more scopes are required"),
            Reason::AccessRevoked => row("access_revoked", 200, 403, -32017, "access was revoked"),
            Reason::SessionNotFound => row("session_not_found", 404, 404, -32018, "the session was not found"),
            Reason::Throttled => row("throttled", 429, 429, -32016, "too many requests; try again later"),
            Reason::NotAllowed => row("not_allowed", 200, 403, -32003, "not allowed by policy"),
            Reason::DestinationDenied => row("destination_denied", 200, 403, -32004, "the destination is not allowed"),
            Reason::CredentialUnavailable => {
                row("credential_unavailable", 200, 503, -32005, "the credential is not available")
            }
            Reason::BindingInactive => row("binding_inactive", 200, 403, -32015, "the credential is not in service"),
            Reason::ConsentRequired => {
                row("consent_required", 200, 403, -32012, "an account has to be connected first")
            }
            Reason::DecisionUnavailable => {
                row("decision_unavailable", 200, 503, -32006, "no decision could be had; nothing was sent")
            }
            Reason::Overloaded => row("overloaded", 200, 503, -32007, "too busy; nothing was sent"),
            Reason::FilterMisconfigured => {
                row("filter_misconfigured", 200, 500, -32008, "the gateway is not configured to enforce")
            }
            Reason::RequestTimeout => row("request_timeout", 408, 408, -32009, "the request did not arrive in time"),
            Reason::ResponseWithheld => {
                row("response_withheld", 502, 502, -32010, "the answer could not be made safe and was withheld")
            }
            Reason::BatchMemberDenied => {
                row("batch_member_denied", 200, 403, -32011, "another element of the batch was denied")
            }
            Reason::SecretInRequest => {
                row("secret_in_request", 200, 403, -32014, "the request holds a secret that must not go there")
            }
            Reason::RequestTooLarge => row("request_too_large", 413, 413, -32600, "the request is too large"),
            Reason::InvalidJson => row("invalid_json", 400, 400, -32700, "parse error"),
            Reason::InvalidRequest => row("invalid_request", 400, 400, -32600, "invalid request"),
            Reason::InvalidParams => row("invalid_params", 400, 400, -32602, "invalid parameters"),
            Reason::HeaderMismatch => row("header_mismatch", 400, 400, -32020, "header mismatch"),
            Reason::UnsupportedRevision => {
                row("unsupported_revision", 400, 400, -32022, "unsupported protocol version")
            }
            Reason::MethodNotAllowed => row("method_not_allowed", 405, 405, -32600, "method not allowed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_lead_back_to_their_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
    }

    #[test]
    fn never_mints_a_code_that_mcp_reserves_for_others() {
        for reason in Reason::ALL {
            let code = reason.json_rpc();
            let own = (-32019..=-32000).contains(&code);
            let specified = [-32700, -32600, -32602, -32020, -32022].contains(&code);
            assert!(own || specified, "{} uses {code}", reason.code());
        }
    }

    #[test]
    fn the_documentation_lists_every_reason_as_it_is() {
        let document = include_str!("../../docs/check-contract.md");
        for reason in Reason::ALL {
            let (code, mcp, plain) = (reason.code(), reason.http_status(), reason.plain_status());
            let row = format!("| `{code}` | {mcp} | {plain} | {} |", reason.json_rpc());
            assert!(document.contains(&row), "{row}");
        }
    }
}
