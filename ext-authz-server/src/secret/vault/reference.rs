//! What follows `NAME://` in a reference to Vault.
//!
//! `kv/team/app` is a secret of the KV version 2 engine at `kv`; `?version=3` names one version, and `?mount=team/kv` a
//! mount of more than one segment. `database/creds/app?dynamic` is a credential that an engine makes, with a lease.

/// A reference that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// KV version 2.
    Stored {
        /// The engine's mount.
        mount: Vec<String>,
        /// The secret's path.
        path: Vec<String>,
        /// One version; none: the newest.
        version: Option<u64>,
    },
    /// An engine that makes a credential for each reader.
    Dynamic {
        /// The whole path of the API.
        path: Vec<String>,
    },
}

// === impl Reference ===

impl Reference {
    /// Reads what follows `NAME://`. Placeholders may still be in it.
    ///
    /// # Errors
    /// What is wrong; no part of the reference, which may be a secret.
    pub(super) fn read(rest: &str) -> Result<Reference, &'static str> {
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let mut segments = names(path)?;
        let (mut version, mut mount, mut dynamic) = (None, None, false);
        for parameter in query.into_iter().flat_map(|query| query.split('&')) {
            match parameter.split_once('=') {
                None if parameter == "dynamic" && !dynamic => dynamic = true,
                Some(("version", number)) if version.is_none() => version = Some(read_version(number)?),
                Some(("mount", path)) if mount.is_none() => mount = Some(names(path)?),
                _ => {
                    return Err(
                        "after `?` there are `version=N`, `mount=PATH` and `dynamic`, joined by `&`, each once",
                    );
                }
            }
        }
        if dynamic {
            if version.is_some() || mount.is_some() {
                return Err("a dynamic credential has neither version nor mount");
            }
            if segments.len() < 2 {
                return Err("a dynamic credential is `MOUNT/creds/ROLE?dynamic`");
            }
            return Ok(Reference::Dynamic { path: segments });
        }
        let length = mount.as_ref().map_or(1, Vec::len);
        if mount.is_some_and(|mount| !segments.starts_with(&mount)) {
            return Err("the path begins with the mount");
        }
        if segments.len() <= length {
            return Err("after the mount comes the path of a secret");
        }
        let path = segments.split_off(length);
        Ok(Reference::Stored { mount: segments, path, version })
    }
}

fn names(path: &str) -> Result<Vec<String>, &'static str> {
    let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    let is_name = |segment: &String| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && !segment.contains(['#', '\\'])
            && !segment.chars().any(char::is_control)
    };
    if segments.iter().all(is_name) {
        return Ok(segments);
    }
    Err("a path is names joined by `/`, none of them empty, `.` or `..`")
}

fn read_version(number: &str) -> Result<u64, &'static str> {
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    number.parse().ok().filter(|_| digits).ok_or("a version is a number from 1 on")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(mount: &[&str], path: &[&str], version: Option<u64>) -> Reference {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Reference::Stored { mount: own(mount), path: own(path), version }
    }

    #[test]
    fn references_are_read() {
        let cases = [
            ("kv/app", stored(&["kv"], &["app"], None)),
            ("kv/team/app?version=3", stored(&["kv"], &["team", "app"], Some(3))),
            ("team/kv/app?mount=team/kv&version=1", stored(&["team", "kv"], &["app"], Some(1))),
            ("kv/{user}/a%2Fb", stored(&["kv"], &["{user}", "a%2Fb"], None)),
            (
                "database/creds/app?dynamic",
                Reference::Dynamic { path: ["database", "creds", "app"].map(Into::into).into() },
            ),
        ];
        for (rest, expected) in cases {
            assert_eq!(Reference::read(rest), Ok(expected), "{rest}");
        }
    }

    #[test]
    fn what_could_name_another_secret_is_refused() {
        let bad = [
            "",
            "kv",
            "kv/",
            "/kv/app",
            "kv//app",
            "kv/../app",
            "kv/./app",
            "kv/app/..",
            "kv/a\nb",
            "kv/a#b",
            "kv/a\\b",
            "kv/app?version=0",
            "kv/app?version=01",
            "kv/app?version=+1",
            "kv/app?version=1&version=2",
            "kv/app?x=1",
            "kv/app?",
            "kv/app?mount=other",
            "kv/app?mount=kv/app",
            "kv?dynamic",
            "a/b?dynamic&version=1",
            "kv/app?mount=",
            "kv/app?dynamic=1",
        ];
        for rest in bad {
            assert!(Reference::read(rest).is_err(), "{rest}");
        }
    }
}
