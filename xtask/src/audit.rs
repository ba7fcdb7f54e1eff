//! `cargo xtask audit`: licences, banned crates and sources of every dependency, after `deny.toml`.
//!
//! With `cargo-deny` on PATH that does the work, known vulnerabilities included where its database can be fetched.
//! Without, the rules of `deny.toml` that need no database are checked here, and the rest is said to be skipped.

mod licence;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use keyward_tests::files;
use serde_json::Value;
use toml_edit::DocumentMut;

use crate::cargo::{self, cargo};

/// What `deny.toml` says, as far as it is checked here.
struct Rules {
    licences: BTreeSet<String>,
    /// Crate and licence.
    exceptions: BTreeSet<(String, String)>,
    banned: BTreeSet<String>,
    registries: BTreeSet<String>,
}

/// `cargo xtask audit`.
pub(crate) fn run() -> Result<()> {
    let has_deny = Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if has_deny.is_ok_and(|status| status.success()) {
        return with_cargo_deny();
    }
    let rules = Rules::read()?;
    let (checked, faults) = check(&rules, &packages()?);
    for fault in &faults {
        println!("audit: {fault}");
    }
    println!(
        "audit: advisories were skipped: `cargo-deny` is not installed (`cargo install --locked cargo-deny` brings it)"
    );
    println!("audit: {checked} crates passed, {} failed", faults.len());
    if !faults.is_empty() {
        bail!("the dependency audit failed");
    }
    Ok(())
}

fn with_cargo_deny() -> Result<()> {
    cargo::run(&mut cargo(&["deny", "--workspace", "check", "bans", "licenses", "sources"]))?;
    if cargo(&["deny", "fetch", "db"]).status().is_ok_and(|status| status.success()) {
        return cargo::run(&mut cargo(&["deny", "--workspace", "check", "advisories", "--disable-fetch"]));
    }
    println!("audit: advisories were skipped: their database cannot be fetched from here");
    Ok(())
}

/// The packages that are built for any target; the lock file also names optional ones that nothing turns on.
fn packages() -> Result<Vec<Value>> {
    let mut metadata: Value = serde_json::from_str(&output(&["metadata", "--format-version", "1", "--locked"])?)
        .context("reading `cargo metadata`")?;
    let tree = output(&["tree", "--workspace", "--locked", "--target", "all", "--prefix", "none", "--format", "{p}"])?;
    let built: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let Value::Array(packages) = metadata["packages"].take() else {
        bail!("`cargo metadata` lists no packages");
    };
    let is_built = |package: &Value| {
        let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
        built.contains(&(text("name"), text("version")))
    };
    Ok(packages.into_iter().filter(is_built).collect())
}

fn output(arguments: &[&str]) -> Result<String> {
    let mut command = cargo(arguments);
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("`{}` ended with {}", cargo::line(&command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{}`", cargo::line(&command)))
}

/// How many packages are right, and what is wrong with the others.
fn check(rules: &Rules, packages: &[Value]) -> (usize, Vec<String>) {
    let mut faults = Vec::new();
    let mut right = 0;
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
        let found = rules.faults(text("name"), text("source"), text("license"));
        if found.is_empty() {
            right += 1;
        }
        faults.extend(found.into_iter().map(|fault| format!("`{} {}`: {fault}", text("name"), text("version"))));
    }
    (right, faults)
}

// === impl Rules ===

impl Rules {
    fn read() -> Result<Self> {
        let path = files::workspace().join("deny.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("reading `{}`", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse()?;
        let list = |table: &str, key: &str| -> Vec<toml_edit::Value> {
            let found = document.get(table).and_then(|table| table.get(key)).and_then(|item| item.as_array());
            found.map(|array| array.iter().cloned().collect()).unwrap_or_default()
        };
        let field = |value: &toml_edit::Value, key: &str| -> String {
            let found = value.as_inline_table().and_then(|table| table.get(key)).and_then(|value| value.as_str());
            found.unwrap_or_default().to_owned()
        };
        let strings = |table: &str, key: &str| -> BTreeSet<String> {
            list(table, key).iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let mut exceptions = BTreeSet::new();
        for exception in list("licenses", "exceptions") {
            let allowed =
                exception.as_inline_table().and_then(|table| table.get("allow")).and_then(|item| item.as_array());
            for licence in allowed.into_iter().flatten().filter_map(|value| value.as_str()) {
                exceptions.insert((field(&exception, "crate"), licence.to_owned()));
            }
        }
        let rules = Self {
            licences: strings("licenses", "allow"),
            exceptions,
            banned: list("bans", "deny").iter().map(|value| field(value, "crate")).collect(),
            registries: strings("sources", "allow-registry"),
        };
        if rules.licences.is_empty() || rules.banned.is_empty() {
            bail!("`licenses.allow` or `bans.deny` is missing or empty");
        }
        Ok(rules)
    }

    fn faults(&self, name: &str, source: &str, licence: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if self.banned.contains(name) {
            faults.push("banned by `bans.deny`".to_owned());
        }
        // The default registry is always good; a workspace member has no source.
        let registry = source.strip_prefix("registry+").or_else(|| source.strip_prefix("sparse+"));
        let is_default = registry == Some(DEFAULT_REGISTRY);
        if !source.is_empty() && !is_default && !registry.is_some_and(|url| self.registries.contains(url)) {
            faults.push(format!("comes from `{source}`, which `sources` does not allow"));
        }
        let is_allowed =
            |one: &str| self.licences.contains(one) || self.exceptions.contains(&(name.to_owned(), one.to_owned()));
        if !licence::allows(licence, &is_allowed) {
            faults.push(format!("licence `{licence}` is not in `licenses.allow`"));
        }
        faults
    }
}

/// How cargo writes the default registry into metadata and lock files.
const DEFAULT_REGISTRY: &str = concat!("https://", "github.com/rust-lang/crates.io-index");

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0"]
exceptions = [{ crate = "odd", allow = ["CC0-1.0"] }]
[bans]
deny = [{ crate = "openssl-sys", reason = "x" }]
"#;

    fn faults(name: &str, source: &str, licence: &str) -> usize {
        Rules::parse(RULES).unwrap().faults(name, source, licence).len()
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let registry = format!("registry+{DEFAULT_REGISTRY}");
        assert_eq!(faults("good", &registry, "MIT OR GPL-3.0"), 0);
        assert_eq!(faults("own", "", "Apache-2.0"), 0);
        assert_eq!(faults("odd", &registry, "CC0-1.0"), 0);
        assert_eq!(faults("even", &registry, "CC0-1.0"), 1);
        assert_eq!(faults("openssl-sys", &registry, "MIT"), 1);
        assert_eq!(faults("forked", "git+https://example.com/forked", "MIT"), 1);
        assert_eq!(faults("unlicensed", &registry, ""), 1);
    }

    #[test]
    fn rules_that_ban_nothing_are_refused() {
        assert!(Rules::parse("[licenses]\nallow = [\"MIT\"]\n").is_err());
    }
}
