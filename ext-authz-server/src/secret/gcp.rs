//! Google Cloud's Secret Manager: `projects/P/secrets/S/versions/V`, where `V` is a number or `latest`, also with
//! `locations/L` for a regional secret. The checksum of each payload is verified.

mod login;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::json::Value;
use zeroize::Zeroizing;

use super::local::Local;
use super::remote::{Call, Given, Remote, RemoteStore, Session, StoreError, StoreErrorKind, with_token};
use super::{SecretBytes, Secrets};
use crate::config::{Caching, GcpStore};
use crate::outbound::Outbound;

/// Secret Manager as one identity sees it.
pub(super) struct Gcp {
    name: String,
    config: GcpStore,
    remote: Remote,
    local: Local,
    session: Session,
}

// === impl Gcp ===

impl Gcp {
    pub(super) fn new(name: &str, config: &GcpStore, secrets: &Arc<Secrets>, outbound: &Outbound) -> Gcp {
        let remote = Remote::new(&config.address, None, outbound);
        let (local, session) = (Local::new(secrets), Session::default());
        Gcp { name: name.to_owned(), config: config.clone(), remote, local, session }
    }
}

/// The segments of a version's name, where they have the right form.
fn segments(rest: &str) -> Result<Vec<&str>, &'static str> {
    let parts: Vec<&str> = rest.split('/').collect();
    // Placeholders and what fills them in (percent-encoded) may stand in a name.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.{}%~".contains(&byte);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255 && name.bytes().all(allowed);
    let version = match *parts.as_slice() {
        ["projects", project, "secrets", secret, "versions", version] if is_name(project) && is_name(secret) => version,
        ["projects", project, "locations", location, "secrets", secret, "versions", version]
            if is_name(project) && is_name(location) && is_name(secret) =>
        {
            version
        }
        _ => {
            return Err(
                "what follows `://` is `projects/P/secrets/S/versions/V`, with `locations/L/` for a regional secret",
            );
        }
    };
    // An alias of a version is a name of letters, digits, `-` and `_`; a number is a version.
    if version.is_empty()
        || version.len() > 63
        || !version.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        return Err("a version is a number, `latest` or an alias");
    }
    Ok(parts)
}

/// CRC-32C (Castagnoli), as the field `dataCrc32c` holds it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |value: u32| if value & 1 == 1 { (value >> 1) ^ 0x82F6_3B78 } else { value >> 1 };
    !bytes.iter().fold(!0, |value, byte| (0..8).fold(value ^ u32::from(*byte), |value, _| step(value)))
}

impl RemoteStore for Gcp {
    fn name(&self) -> &str {
        &self.name
    }

    fn caching(&self) -> Caching {
        self.config.caching
    }

    fn check_form(&self, rest: &str) -> Result<(), &'static str> {
        segments(rest).map(drop)
    }

    async fn read(&self, rest: &str) -> Result<Given, StoreError> {
        let setup = |cause: &str| StoreError::new(StoreErrorKind::Setup, &self.name, cause, "correct the reference");
        let parts = segments(rest).map_err(setup)?;
        let call = Call::get(["v1"].into_iter().chain(parts), format!("access `{rest}`")).action("access");
        let answer = with_token(&self.remote, &self.session, call, || self.login()).await?;
        match answer.status() {
            200 => {}
            400 => {
                let remedy = "name a version that is enabled, or `latest`";
                return Err(answer.error(StoreErrorKind::Missing, remedy));
            }
            401 => return Err(answer.error(StoreErrorKind::Refused, "check `auth`: its tokens are not accepted")),
            403 => {
                let remedy = "give the identity roles/secretmanager.secretAccessor on this secret";
                return Err(answer.error(StoreErrorKind::Refused, remedy));
            }
            404 => return Err(answer.error(StoreErrorKind::Missing, "add a version, or correct the reference")),
            _ => return Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
        let value = answer.json()?;
        let text = |at: &str| value.pointer(at).and_then(Value::as_str);
        let data = text("/payload/data").and_then(|data| STANDARD.decode(data).ok()).map(Zeroizing::new);
        let mut data = data.ok_or_else(|| answer.malformed("there is no base64 in `payload.data`"))?;
        let checksum = text("/payload/dataCrc32c").and_then(|checksum| checksum.parse::<u32>().ok());
        if checksum != Some(crc32c(&data)) {
            return Err(
                answer.malformed("the payload does not fit its checksum `dataCrc32c`: it was damaged on the way")
            );
        }
        tracing::debug!(store = self.name, version = text("/name"), "accessed a version");
        Ok((Arc::new(SecretBytes::new(std::mem::take(&mut *data))), None))
    }

    async fn try_login(&self) -> Result<String, StoreError> {
        let grant = self.session.grant(|| self.login()).await?;
        let left = grant.remaining().unwrap_or_default().as_secs();
        Ok(format!("got a token for {}; it is good for {left} s", self.remote.address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn references_are_read() {
        for good in [
            "projects/p-1/secrets/jira/versions/latest",
            "projects/p/secrets/key-{user}/versions/3",
            "projects/example.com:p/locations/europe-west3/secrets/s/versions/prod",
        ] {
            assert!(segments(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "projects/p/secrets/s",
            "projects/p/secrets/s/versions/",
            "projects//secrets/s/versions/1",
            "projects/p/secrets/../versions/1",
            "projects/p/secrets/a/b/versions/1",
            "projects/p/secrets/s/versions/latest:access",
            "projects/p/secrets/s/versions/1?x=y",
            "projects/p/secrets/s/versions/{user}",
        ] {
            assert!(segments(bad).is_err(), "{bad}");
        }
    }
}
