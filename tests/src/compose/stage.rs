//! What `docker-compose.yaml` copies and mounts: `image/`, `envoy/`, `keyward/`, `secrets/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand;
use serde_json::{Value, json};

use super::readable;
use crate::envoy::{Endpoint, Options as EnvoyOptions};
use crate::issuer::{Issuer, Token};
use crate::stack::{ROLE, SUBJECT};
use crate::{files, tools};

/// Where the containers find things; `docker-compose.yaml`, the Dockerfile and keyward.yaml say the same.
const MODULE: &str = "/usr/local/lib/keyward/keyward_filter.wasm";
const SOCKET: &str = "/run/keyward/keyward.sock";
const LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 10_000);
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 9901);
const UPSTREAM: (&str, u16) = ("upstream", 9000);

/// What was made up for this one run.
pub(super) struct Staged {
    pub(super) token: String,
    pub(super) secret: String,
}

/// Empties the folder and fills it anew. The issuer's private keys are never written.
pub(super) fn fill(folder: &Path, token_lifetime: Duration) -> Result<Staged> {
    files::fresh_folder(folder)?;
    // The secrets below are readable to the containers' users; on this machine, this keeps everyone else out.
    set_mode(folder, 0o700)?;
    image(&made(folder, "image")?)?;
    readable(&made(folder, "envoy")?.join("envoy.yaml"), serde_saphyr::to_string(&bootstrap()?)?)?;

    let issuer = Issuer::new()?;
    let keyward = made(folder, "keyward")?;
    let containers = files::workspace().join("containers");
    readable(&keyward.join("keyward.yaml"), read(&containers.join("keyward.yaml"))?)?;
    readable(&keyward.join("jwks.json"), issuer.jwks().to_string())?;
    let policies = made(&keyward, "policies")?;
    files::copy_folder(&files::workspace().join("policies"), &policies)?;
    for entry in fs::read_dir(&policies)? {
        set_mode(&entry?.path(), 0o644)?;
    }

    let secret = format!("kw-demo-{}", random()?);
    let secrets = made(folder, "secrets")?;
    readable(&secrets.join("upstream_key"), &secret)?;
    readable(&secrets.join("audit_hmac_key"), random()?)?;

    let seconds = i64::try_from(token_lifetime.as_secs()).context("the token's lifetime")?;
    let token = issuer.sign(&Token::new(SUBJECT, &[ROLE]).lifetime(0, seconds))?;
    Ok(Staged { token, secret })
}

/// The build context: the Dockerfile and what it copies.
fn image(folder: &Path) -> Result<()> {
    let containers = files::workspace().join("containers");
    readable(&folder.join("Dockerfile"), read(&containers.join("Dockerfile"))?)?;
    readable(&folder.join("keyward_filter.wasm"), read(&files::filter_module()?)?)?;
    // An empty folder to copy the owner of a volume from.
    made(folder, "empty")?;
    let programs = [
        ("probe", containers.join("probe")),
        ("upstream", containers.join("upstream")),
        ("envoy", tools::envoy_version(tools::ENVOY_VERSION)?),
        ("keyward", files::program("keyward")?),
        ("keyward-demo-upstream", files::program("keyward-demo-upstream")?),
    ];
    for (name, path) in programs {
        let copy = folder.join(name);
        fs::copy(&path, &copy).with_context(|| format!("copying `{}`", path.display()))?;
        set_mode(&copy, 0o755)?;
    }
    Ok(())
}

/// The sample bootstrap with the containers' paths and names.
fn bootstrap() -> Result<Value> {
    let options = EnvoyOptions {
        listen: LISTEN.into(),
        admin: ADMIN.into(),
        keyward: Endpoint::Unix(PathBuf::from(SOCKET)),
        module: Some(PathBuf::from(MODULE)),
        ..EnvoyOptions::default()
    };
    let mut root = options.bootstrap()?;
    let upstream = root.pointer_mut("/static_resources/clusters/1").ok_or_else(|| anyhow!("no cluster to change"))?;
    let (address, port) = UPSTREAM;
    if let Some(place) = upstream.pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address") {
        *place = json!({"socket_address": {"address": address, "port_value": port}});
    }
    if let Some(cluster) = upstream.as_object_mut() {
        // The name is the compose service's.
        cluster.insert("type".to_owned(), json!("STRICT_DNS"));
        cluster.insert("dns_lookup_family".to_owned(), json!("V4_ONLY"));
    }
    Ok(root)
}

fn made(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(&path).with_context(|| format!("making `{}`", path.display()))?;
    set_mode(&path, 0o755)?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading `{}`", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of `{}`", path.display()))
}

/// 32 hexadecimal digits nobody can guess.
fn random() -> Result<String> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyward_yaml_and_the_compose_file_name_the_same_places() {
        let text = |path: &str| fs::read_to_string(files::workspace().join(path)).unwrap();
        let keyward: Value = serde_saphyr::from_str(&text("containers/keyward.yaml")).unwrap();
        assert_eq!(keyward["listen"]["grpc"], format!("unix:{SOCKET}"));
        assert_eq!(keyward["servers"]["demo"]["upstream_authority"], format!("{}:{}", UPSTREAM.0, UPSTREAM.1));
        assert!(text("containers/Dockerfile").contains(MODULE));
        let compose = text("docker-compose.yaml");
        for path in ["upstream_key", "audit_hmac_key"] {
            assert!(compose.contains(&format!("/secrets/{path}")), "{path}");
        }
    }

    #[test]
    fn random_values_differ() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
