//! What must not stand in a credential of `type: oauth`: each grant has its own fields, and each way to prove a client.

use super::{ClientAuthentication, OauthClient, OauthCredential, OauthGrant, TOKEN, TokenFrom, TokenSource};
use crate::caller::{self, PlaceholderError, TOUCHING_REMEDY};
use crate::config::check::{Checker, names};
use crate::identity::jwks::check_url;

/// Where clouds tell a machine what it is.
const METADATA_SERVICE: &str = "http://169.254.169.254";
const URL_REMEDY: &str = "write an `https` address; `http` is for loopback only";

/// Adds everything that is wrong; `key` is the place of the credential.
pub(super) fn check(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    fields(own, key, checker);
    urls(own, key, checker);
    place(own, key, checker);
    for (name, list) in [
        ("scopes", Some(&own.scopes)),
        ("resource_server.scopes", own.resource_server.as_ref().map(|server| &server.scopes)),
    ] {
        scopes(&format!("{key}.{name}"), list.map(Vec::as_slice).unwrap_or_default(), checker);
    }
    for (name, text) in [("audience", &own.audience), ("provider", &own.provider)] {
        if let Some(text) = text {
            checker.text(format!("{key}.{name}"), text);
        }
    }
    if let Some(client) = &own.client {
        self::client(client, &format!("{key}.client"), checker);
    }
    if let Some(server) = &own.resource_server {
        self::client(&server.client, &format!("{key}.resource_server.client"), checker);
    }
    if let Some(token) = &own.subject {
        self::token(token, &format!("{key}.subject"), checker);
    }
    if let Some(token) = &own.actor {
        self::token(token, &format!("{key}.actor"), checker);
    }
    particular(own, key, checker);
    subjects(own, key, checker);
}

/// Whom an assertion is about: two people are never one.
fn subjects(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    let subjects = [
        ("assertion.subject", own.assertion.as_ref().and_then(|own| own.subject.as_deref())),
        ("service_account.subject", own.service_account.as_ref().and_then(|own| own.subject.as_deref())),
    ];
    for (name, subject) in subjects {
        if let Some(Err(error)) = subject.map(caller::check) {
            let remedy = match error {
                PlaceholderError::Touching => TOUCHING_REMEDY,
                _ => "write for example `{user}`",
            };
            checker.add(format!("{key}.{name}"), error.to_string(), remedy);
        }
    }
}

/// Whether each field belongs to the grant, and whether those are there that it needs.
fn fields(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    use OauthGrant::*;
    let grant = own.grant;
    let to_server = !matches!(grant, GoogleServiceAccount | GoogleMetadata | AzureManagedIdentity | GithubApp);
    let metadata = grant == GoogleMetadata || from(own, TokenFrom::GoogleMetadata);
    let managed = grant == AzureManagedIdentity || from(own, TokenFrom::AzureManagedIdentity);
    let google = matches!(grant, TokenExchange | GoogleServiceAccount | GoogleMetadata);
    // Field, whether it is there, whether the grant needs it, whether the grant has it.
    let rules = [
        (
            "client",
            own.client.is_some(),
            matches!(grant, ClientCredentials | RefreshToken | OnBehalfOf | IdJag),
            to_server,
        ),
        ("issuer", own.issuer.is_some(), false, to_server),
        ("token_endpoint", own.token_endpoint.is_some(), false, to_server || grant == GoogleServiceAccount),
        ("scopes", !own.scopes.is_empty(), grant == OnBehalfOf, !matches!(grant, AzureManagedIdentity | GithubApp)),
        (
            "audience",
            own.audience.is_some(),
            false,
            !matches!(grant, OnBehalfOf | IdJag | AzureManagedIdentity | GithubApp),
        ),
        ("resource", own.resource.is_some(), grant == AzureManagedIdentity, to_server || grant == AzureManagedIdentity),
        ("refresh_token", own.refresh_token.is_some(), false, grant == RefreshToken),
        ("provider", own.provider.is_some(), false, grant == RefreshToken),
        ("subject", own.subject.is_some(), false, matches!(grant, TokenExchange | OnBehalfOf | IdJag)),
        ("actor", own.actor.is_some(), false, grant == TokenExchange),
        ("assertion", own.assertion.is_some(), grant == JwtBearer, grant == JwtBearer),
        ("resource_server", own.resource_server.is_some(), grant == IdJag, grant == IdJag),
        (
            "service_account",
            own.service_account.is_some(),
            grant == GoogleServiceAccount,
            grant == GoogleServiceAccount,
        ),
        ("impersonate", own.impersonate.is_some(), false, google),
        ("google_metadata", own.google_metadata.is_some(), false, metadata),
        ("managed_identity", own.managed_identity.is_some(), false, managed),
        ("app", own.app.is_some(), grant == GithubApp, grant == GithubApp),
        ("dpop", own.dpop, false, to_server),
    ];
    for (name, there, needed, allowed) in rules {
        if there && !allowed {
            let message = format!("the grant `{}` has no `{name}`", grant.as_str());
            checker.add(format!("{key}.{name}"), message, "remove it");
        } else if needed && !there {
            let message = format!("the grant `{}` needs `{name}`", grant.as_str());
            checker.add(format!("{key}.{name}"), message, "add it");
        }
    }
    if to_server && own.issuer.is_none() && own.token_endpoint.is_none() {
        checker.add(key, "neither `issuer` nor `token_endpoint`", "say where the token is to be had");
    }
}

/// Where two fields depend on each other.
fn particular(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    if own.grant == OauthGrant::RefreshToken && own.refresh_token.is_some() == own.provider.is_some() {
        let remedy = "write `refresh_token` for a service's own, or `provider` for the one of the user";
        checker.add(key, "exactly one of `refresh_token` and `provider` is there", remedy);
    }
    if own.grant == OauthGrant::TokenExchange && own.audience.is_none() && own.resource.is_none() {
        let remedy = "say for whom the token is to be: `resource`, or `audience`";
        checker.add(key, "a token exchange without a target", remedy);
    }
    if matches!(own.grant, OauthGrant::GoogleServiceAccount | OauthGrant::GoogleMetadata)
        && own.scopes.is_empty() == own.id_token_audience().is_none()
    {
        let remedy = "write `scopes` for an access token, or `audience` for an ID token";
        checker.add(key, "exactly one of `scopes` and `audience` is there", remedy);
    }
    if own
        .impersonate
        .as_ref()
        .is_some_and(|other| !other.account.contains('@') || other.account.contains(['/', '?', '#']))
    {
        checker.add(
            format!("{key}.impersonate.account"),
            "not the e-mail address of a service account",
            "write NAME@PROJECT…",
        );
    }
    if own.grant == OauthGrant::OnBehalfOf {
        let targets = targets(&own.scopes);
        if targets.len() > 1 {
            let message = format!("scopes of {} audiences; a token is for one", targets.len());
            checker.add(format!("{key}.scopes"), message, "split the credential into one for each audience");
        }
        let id = own.client.as_ref().map(|client| client.id.as_str()).unwrap_or_default();
        if targets.iter().any(|target| *target == id || target.strip_prefix("api://") == Some(id)) {
            let message = "the scopes are those of the client itself, not of an API behind it";
            checker.add(format!("{key}.scopes"), message, "name the scopes of the API that is called");
        }
    }
    if own.dpop && (own.query.is_some() || own.header.is_some() || own.template.is_some()) {
        let message = "a bound token goes into `authorization` with its proof beside it (RFC 9449, 7.1)";
        checker.add(format!("{key}.dpop"), message, "remove `header`, `query` and `template`");
    }
    let is_public = own.client.as_ref().is_some_and(|client| client.authentication == ClientAuthentication::None);
    if own.dpop && own.grant == OauthGrant::RefreshToken && is_public {
        let message = "the refresh token of a public client is bound to one key (RFC 9449, 5), and here each access token has \
                       a key of its own: the server would refuse the grant";
        checker.add(format!("{key}.dpop"), message, "give the client an `authentication`, or remove `dpop`");
    }
    if let Some(app) = &own.app {
        checker.text(format!("{key}.app.id"), &app.id);
        if app.installation == 0 {
            checker.add(format!("{key}.app.installation"), "`0` is no installation", "write the installation's number");
        }
    }
}

/// The audiences that scopes of Microsoft Entra belong to: all but the last segment. Those of OpenID Connect belong to none.
pub(super) fn targets(scopes: &[String]) -> Vec<&str> {
    let mut targets: Vec<&str> = Vec::new();
    for scope in
        scopes.iter().filter(|scope| !["openid", "profile", "email", "offline_access"].contains(&scope.as_str()))
    {
        let target = scope.rsplit_once('/').map_or("", |(target, _)| target);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

fn urls(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    let server = own.resource_server.as_ref();
    let urls = [
        ("issuer", own.issuer.as_ref()),
        ("token_endpoint", own.token_endpoint.as_ref()),
        ("resource_server.issuer", server.map(|server| &server.issuer)),
        ("resource_server.token_endpoint", server.and_then(|server| server.token_endpoint.as_ref())),
        ("impersonate.api", own.impersonate.as_ref().and_then(|other| other.api.as_ref())),
        ("app.api", own.app.as_ref().and_then(|app| app.api.as_ref())),
    ];
    for (name, url) in urls {
        if let Some(url) = url
            && let Err(cause) = check_url(url)
        {
            checker.add(format!("{key}.{name}"), format!("not an address of a server: {cause}"), URL_REMEDY);
        }
    }
    let metadata = [
        ("google_metadata.url", own.google_metadata.as_ref().and_then(|own| own.url.as_ref())),
        ("managed_identity.url", own.managed_identity.as_ref().and_then(|own| own.url.as_ref())),
    ];
    for (name, url) in metadata {
        if let Some(url) = url.filter(|url| url.trim_end_matches('/') != METADATA_SERVICE)
            && let Err(cause) = check_url(url)
        {
            checker.add(format!("{key}.{name}"), format!("not an address of a server: {cause}"), URL_REMEDY);
        }
    }
    let has_scheme =
        |resource: &str| resource.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if own.grant != OauthGrant::AzureManagedIdentity
        && own.resource.as_deref().is_some_and(|resource| !has_scheme(resource) || resource.contains('#'))
    {
        let message = "not an absolute URI without a fragment (RFC 8707, 2)";
        checker.add(format!("{key}.resource"), message, "write for example `https://api.example/`");
    }
}

fn scopes(key: &str, scopes: &[String], checker: &mut Checker<'_>) {
    // RFC 6749, 3.3: %x21 / %x23-5B / %x5D-7E.
    let is_scope =
        |scope: &str| !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    checker.distinct(key, scopes);
    for (index, scope) in scopes.iter().enumerate().filter(|(_, scope)| !is_scope(scope)) {
        checker.add(
            format!("{key}[{index}]"),
            format!("`{scope}` is not one scope"),
            "write each scope as an entry of its own",
        );
    }
}

fn client(client: &OauthClient, key: &str, checker: &mut Checker<'_>) {
    use ClientAuthentication::*;
    checker.text(format!("{key}.id"), &client.id);
    let method = client.authentication;
    let by_secret = matches!(method, ClientSecretBasic | ClientSecretPost);
    let by_key = matches!(method, PrivateKeyJwt | TlsClientAuth);
    let rules = [
        ("secret", client.secret.is_some(), by_secret, by_secret),
        ("key", client.key.is_some(), by_key, by_key),
        ("key_id", client.key_id.is_some(), false, method == PrivateKeyJwt),
        ("algorithm", client.algorithm.is_some(), false, method == PrivateKeyJwt),
        ("audience", client.audience.is_some(), false, method == PrivateKeyJwt),
        ("certificate", client.certificate.is_some(), method == TlsClientAuth, by_key),
        ("token", client.token.is_some(), method == FederatedToken, method == FederatedToken),
    ];
    for (name, there, needed, allowed) in rules {
        if there && !allowed {
            checker.add(format!("{key}.{name}"), "this `authentication` does not use it", "remove it");
        } else if needed && !there {
            checker.add(format!("{key}.{name}"), "this `authentication` needs it", "add it");
        }
    }
    if let Some(token) = &client.token {
        self::token(token, &format!("{key}.token"), checker);
        if token.from == TokenFrom::Caller {
            let message = "the caller's token does not say who Keyward is";
            checker.add(
                format!("{key}.token.from"),
                message,
                "write `secret`, `google_metadata` or `azure_managed_identity`",
            );
        }
    }
}

fn token(token: &TokenSource, key: &str, checker: &mut Checker<'_>) {
    let from_secret = token.from == TokenFrom::Secret;
    match (&token.secret, from_secret) {
        (None, true) => checker.add(format!("{key}.secret"), "`from: secret` needs it", "say where the token is"),
        (Some(_), false) => checker.add(format!("{key}.secret"), "only `from: secret` has it", "remove it"),
        _ => {}
    }
    let asked = matches!(token.from, TokenFrom::GoogleMetadata | TokenFrom::AzureManagedIdentity);
    match &token.audience {
        None if asked => {
            checker.add(format!("{key}.audience"), "the token has to be for somebody", "name the audience")
        }
        Some(_) if from_secret => {
            checker.add(format!("{key}.audience"), "a token out of a store is as it is", "remove it");
        }
        Some(audience) => checker.text(format!("{key}.audience"), audience),
        None => {}
    }
}

fn place(own: &OauthCredential, key: &str, checker: &mut Checker<'_>) {
    if own.header.is_some() && own.query.is_some() {
        checker.add(format!("{key}.query"), "the token has two places", "keep `header` or `query`");
    }
    if let Some(header) = &own.header
        && let Some(problem) = names::header_problem(header)
    {
        checker.add(format!("{key}.header"), format!("`{header}`: {problem}"), "name an end-to-end header");
    }
    if let Some(query) = &own.query
        && (query.is_empty() || query.len() > 128 || query.chars().any(char::is_control))
    {
        let message = "not the name of a query parameter";
        checker.add(format!("{key}.query"), message, "write the plain name, not percent-encoded");
    }
    if let Some(template) = &own.template
        && (template.matches(TOKEN).count() != 1
            || template.len() > 512
            || template.chars().any(|char| char.is_control() || !char.is_ascii()))
    {
        let message = "not printable ASCII of up to 512 bytes with exactly one `{token}`";
        checker.add(format!("{key}.template"), message, "write for example `Bearer {token}`");
    }
}

fn from(own: &OauthCredential, from: TokenFrom) -> bool {
    let clients = [own.client.as_ref(), own.resource_server.as_ref().map(|server| &server.client)];
    let of_clients = clients.into_iter().flatten().map(|client| client.token.as_ref());
    let tokens = of_clients.chain([own.subject.as_ref(), own.actor.as_ref()]);
    tokens.flatten().any(|token| token.from == from)
}
