//! Certificates of a test's own, made by the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyward_tests::files;

/// A certificate authority in a folder of its own.
pub(crate) struct Authority {
    folder: PathBuf,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl Authority ===

impl Authority {
    /// A new one; its folder has the name of the test in it.
    pub(crate) fn new(test: &str) -> Authority {
        let folder = files::run_folder(&format!("authority-{test}")).unwrap();
        openssl(
            &folder,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=authority",
                "-addext",
                "keyUsage=critical,keyCertSign",
                "-keyout",
                "authority.key",
                "-out",
                "authority.pem",
            ],
        );
        let certificate = read(&folder, "authority.pem");
        Authority { folder, certificate }
    }

    /// A pair with P-256 of this common name, for `name` as a host, too.
    pub(crate) fn pair(&self, name: &str) -> Pair {
        self.pair_with(name, &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    /// A pair with another kind of key: what follows `-newkey`.
    pub(crate) fn pair_with(&self, name: &str, key: &[&str]) -> Pair {
        let (key_file, request, file) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let new = ["-nodes", "-subj", &subject, "-keyout", &key_file, "-out", &request];
        openssl(&self.folder, &[&["req", "-new", "-newkey"], key, &new[..]].concat());
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{name}\n");
        files::replace(&self.folder.join("extensions"), extensions).unwrap();
        openssl(
            &self.folder,
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "authority.pem",
                "-CAkey",
                "authority.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "extensions",
                "-out",
                &file,
            ],
        );
        Pair { certificate: read(&self.folder, &file), key: read(&self.folder, &key_file) }
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}
