//! An issuer: its keys can be had and used, and its clock agrees with ours.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{CHECK_TIMEOUT, Findings, Seen, Wrong, date};
use crate::config::Issuer;
use crate::identity::KeySet;
use crate::outbound::{Answer, Ask, Outbound};

/// Adds one finding about the keys and, where they come from a URL, one about the clock.
pub(super) async fn examine(issuer: &Issuer, outbound: &Outbound, findings: &mut Findings) {
    let (keys_check, clock_check) = (format!("issuer `{}`", issuer.name), format!("clock of issuer `{}`", issuer.name));
    let Some(url) = &issuer.jwks.url else {
        let file = issuer.jwks.file.as_deref().unwrap_or(std::path::Path::new(""));
        let seen = std::fs::read(file).map_err(|cause| cause.to_string()).and_then(|bytes| usable(issuer, &bytes));
        let seen = seen.map_err(|cause| Wrong::failed(cause, "name a JWK Set with a public key of these algorithms"));
        findings.note(&keys_check, seen.map(|count| format!("{count} usable keys in `{}`", file.display())));
        return;
    };
    let asked = tokio::time::timeout(CHECK_TIMEOUT, outbound.send(Ask::get(url.as_str()))).await;
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let remedy = "check `jwks.url`, the network from here, and the certificate there";
            return findings.note(&keys_check, Err(Wrong::failed(error.to_string(), remedy)));
        }
        Err(_) => {
            let seen = format!("no answer within {} s", CHECK_TIMEOUT.as_secs());
            return findings.note(&keys_check, Err(Wrong::failed(seen, "check `jwks.url` and the network from here")));
        }
    };
    findings.note(&keys_check, keys(issuer, url, &answer));
    findings.note(&clock_check, clock(issuer, &answer));
}

fn keys(issuer: &Issuer, url: &str, answer: &Answer) -> Seen {
    if answer.status != 200 {
        let seen = format!("`{url}` answers with status {}", answer.status);
        return Err(Wrong::failed(
            seen,
            "write the `jwks_uri` of the issuer's own metadata; redirects are not followed",
        ));
    }
    let count = usable(issuer, answer.body()).map_err(|cause| {
        Wrong::failed(format!("`{url}`: {cause}"), "compare `algorithms` with the keys that the issuer publishes")
    })?;
    Ok(format!("{count} usable keys at `{url}`"))
}

fn usable(issuer: &Issuer, bytes: &[u8]) -> Result<usize, String> {
    KeySet::parse(bytes, &issuer.algorithms).map(|keys| keys.len()).map_err(|cause| cause.to_string())
}

fn clock(issuer: &Issuer, answer: &Answer) -> Seen {
    let Some(theirs) = answer.header("date").and_then(date::unix_secs) else {
        return Err(Wrong::Unknown("its answer has no date".to_owned()));
    };
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    let skew = theirs - ours;
    let allowed = i64::try_from(issuer.clock_skew_secs).unwrap_or(0);
    if skew.abs() <= allowed {
        return Ok(format!("it differs from ours by {} s; {allowed} s are allowed", skew.abs()));
    }
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let seen = format!("it is {} s {direction} ours; {allowed} s are allowed", skew.abs());
    Err(Wrong::failed(seen, "set this machine's clock, for example by NTP, or the issuer's"))
}
