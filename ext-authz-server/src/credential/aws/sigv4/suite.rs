//! AWS's published signing suite, header and query form, through [`sign`]; and cases of our own.
//!
//! The crate `aws-sigv4` brings the suite along, so the cases are wherever the crate is. A copy of the original, which
//! spells one case otherwise, is used where it lies beside the project.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::Value;

use super::super::canonical;
use super::*;

/// Cases that the crate adds to the 38 of the original, in another form: the paths that are encoded twice.
const ENCODED_TWICE: [&str; 2] = ["double-encode-path", "double-url-encode"];

/// One case's request, as `request.txt` and `*-signed-request.txt` spell it.
struct Text {
    method: String,
    path: String,
    query: Option<String>,
    /// Without `host`, `x-amz-date` and what signing adds.
    headers: Vec<(String, String)>,
    authority: String,
    body: String,
}

fn crate_folder() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(cargo)
        // Not offline: it names the packages of every platform, and a build has fetched those of its own only.
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|package| package["name"] == "aws-sigv4").unwrap();
    Path::new(found["manifest_path"].as_str().unwrap()).with_file_name("aws-signing-test-suite/v4")
}

fn read(text: &str) -> Text {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let line = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        match line.split_once(':') {
            Some((name, value)) if !line.starts_with(' ') => {
                headers.push((name.to_ascii_lowercase(), value.to_owned()))
            }
            // A folded line: white space takes the place of the fold.
            _ => headers.last_mut().unwrap().1 += &format!(" {}", line.trim()),
        }
    }
    let mut authority = String::new();
    headers.retain(|(name, value)| match name.as_str() {
        "host" => {
            value.clone_into(&mut authority);
            false
        }
        name => name != "x-amz-date",
    });
    Text { method: method.into(), path: path.into(), query, headers, authority, body: body.into() }
}

fn time(text: &str) -> SystemTime {
    SystemTime::try_from(DateTime::from_str(text, Format::DateTime).unwrap()).unwrap()
}

/// Signs a case after its `context.json`.
fn sign_case(text: &Text, context: &Value, location: fn(u64) -> Location) -> Signed {
    let keys = &context["credentials"];
    let flag = |name: &str| context[name].as_bool().unwrap_or_default();
    let rules = Rules {
        encode_twice: false,
        normalise_path: flag("normalize"),
        digest_header: flag("sign_body"),
        sign_token: !flag("omit_session_token"),
    };
    let path = canonical::path(&text.path).unwrap();
    let query = text.query.as_deref().map(|query| canonical::query(query).unwrap());
    let headers: Vec<(&str, &str)> = text.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = Request {
        method: &text.method,
        authority: &text.authority,
        path: &path,
        query: query.as_deref(),
        headers: &headers,
        payload: Payload::Bytes(text.body.as_bytes()),
    };
    let keys = Keys {
        access_key_id: keys["access_key_id"].as_str().unwrap(),
        secret_access_key: keys["secret_access_key"].as_str().unwrap(),
        session_token: keys["token"].as_str(),
    };
    let scope = Scope {
        region: context["region"].as_str().unwrap(),
        service: context["service"].as_str().unwrap(),
        time: time(context["timestamp"].as_str().unwrap()),
    };
    sign(&request, keys, scope, rules, location(context["expiration_in_seconds"].as_u64().unwrap())).unwrap()
}

/// Runs a folder of cases; the names of those that were run.
fn run(folder: &Path) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if ENCODED_TWICE.contains(&name.as_str()) {
            continue;
        }
        let file = |name: &str| fs::read_to_string(case.join(name)).unwrap();
        let context: Value = serde_json::from_str(&file("context.json")).unwrap();
        let text = read(&file("request.txt"));

        let signed = sign_case(&text, &context, |_| Location::Headers);
        assert_eq!(signed.signature.as_str(), file("header-signature.txt").trim(), "{name}: header form");
        let expected: BTreeSet<String> = added(&text, &file("header-signed-request.txt"));
        let found = signed.headers.iter().map(|(name, value)| format!("{name}:{}", value.as_str()));
        assert_eq!(found.collect::<BTreeSet<_>>(), expected, "{name}: header form");
        assert!(signed.query.is_empty());

        let signed = sign_case(&text, &context, |secs| Location::Query { valid: Duration::from_secs(secs) });
        assert_eq!(signed.signature.as_str(), file("query-signature.txt").trim(), "{name}: query form");
        let pairs = signed.query.iter().map(|(name, value)| format!("{name}={}", value.as_str()));
        let query: Vec<String> = text.query.clone().into_iter().chain(pairs).collect();
        let expected = read(&file("query-signed-request.txt"));
        assert_eq!(query.join("&"), expected.query.unwrap_or_default(), "{name}: query form");
        assert!(signed.headers.is_empty());
        done.insert(name);
    }
    done
}

/// The header lines that signing added to a request.
fn added(before: &Text, signed: &str) -> BTreeSet<String> {
    let date = signed.lines().find(|line| line.to_ascii_lowercase().starts_with("x-amz-date:"));
    let others = read(signed).headers.into_iter().filter(|header| !before.headers.contains(header));
    let others = others.map(|(name, value)| format!("{name}:{value}"));
    others.chain(date.map(|line| line.replacen("X-Amz-Date", "x-amz-date", 1))).collect()
}

#[test]
fn agrees_with_the_published_suite_in_both_forms() {
    let brought = run(&crate_folder());
    assert_eq!(brought.len(), 38, "{brought:?}");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/sigv4");
    if original.is_dir() {
        assert_eq!(run(&original), brought);
    } else {
        println!("SKIPPED: no signing suite at ../shared/vectors/sigv4; the one in the crate `aws-sigv4` was run");
    }
}

fn request<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
    let authority = "bucket.s3.eu-central-1.amazonaws.com";
    Request { method: "GET", authority, path, query: None, headers, payload: Payload::Bytes(b"") }
}

const KEYS: Keys<'static> =
    Keys { access_key_id: "AKIDEXAMPLE", secret_access_key: "an-example-secret-key", session_token: None };

fn scope(service: &str) -> Scope<'_> {
    Scope { region: "eu-central-1", service, time: time("2026-01-02T03:04:05Z") }
}

fn signature(request: &Request<'_>, keys: Keys<'_>, service: &str) -> String {
    let signed = sign(request, keys, scope(service), Rules::of(service), Location::Headers).unwrap();
    signed.signature.to_string()
}

#[test]
fn everything_that_leaves_is_under_the_signature() {
    let plain = signature(&request("/key", &[]), KEYS, "s3");
    let mut others = vec![
        signature(&request("/kez", &[]), KEYS, "s3"),
        signature(&request("/key", &[("x-amz-acl", "public-read")]), KEYS, "s3"),
        signature(&Request { method: "PUT", ..request("/key", &[]) }, KEYS, "s3"),
        signature(&Request { authority: "other.s3.amazonaws.com", ..request("/key", &[]) }, KEYS, "s3"),
        signature(&Request { query: Some("acl"), ..request("/key", &[]) }, KEYS, "s3"),
        signature(&Request { payload: Payload::Bytes(b"x"), ..request("/key", &[]) }, KEYS, "s3"),
        signature(&Request { payload: Payload::Unsigned, ..request("/key", &[]) }, KEYS, "s3"),
        signature(&Request { payload: Payload::UnsignedChunks, ..request("/key", &[]) }, KEYS, "s3"),
        signature(&request("/key", &[]), Keys { session_token: Some("token"), ..KEYS }, "s3"),
        signature(&request("/key", &[]), KEYS, "sts"),
        plain.clone(),
    ];
    let count = others.len();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), count, "two of them are alike");
    assert_eq!(signature(&request("/key", &[]), KEYS, "s3"), plain);
}

#[test]
fn agrees_with_the_published_cases_of_a_path_that_is_encoded_twice() {
    // Their files do not say with which keys they were made; the crate's own tests do.
    let cases = [
        (
            "double-encode-path",
            "service",
            "us-east-1",
            "2015-08-30T12:36:00Z",
            "ANOTREAL",
            "notrealrnrELgWzOk3IfjzDKtFBhDby",
        ),
        (
            "double-url-encode",
            "lambda",
            "us-east-2",
            "2021-05-11T15:40:45Z",
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        ),
    ];
    assert_eq!(cases.map(|(name, ..)| name), ENCODED_TWICE);
    let folder = crate_folder();
    for (name, service, region, at, access_key_id, secret_access_key) in cases {
        let file = |own: &str| fs::read_to_string(folder.join(name).join(own)).unwrap();
        let text = read(&file("request.txt"));
        let request = Request {
            method: &text.method,
            authority: &text.authority,
            path: &text.path,
            query: None,
            headers: &[],
            payload: Payload::Bytes(b""),
        };
        let keys = Keys { access_key_id, secret_access_key, session_token: None };
        let scope = Scope { region, service, time: time(at) };
        let made = |rules| sign(&request, keys, scope, rules, Location::Headers).unwrap().signature.to_string();
        let signed = file("header-signed-request.txt");
        let (_, expected) = signed.split_once("Signature=").unwrap();
        assert_eq!(made(Rules::of(service)), expected.split_whitespace().next().unwrap(), "{name}");
        assert_ne!(made(Rules { encode_twice: false, ..Rules::of(service) }), made(Rules::of(service)), "{name}");
    }
}

#[test]
fn agrees_with_botocore_on_paths_and_bodies_that_the_suite_leaves_out() {
    // What `SigV4Auth` and, for S3, `S3SigV4Auth` of botocore 1.44.5 make of the same request with the same keys and time.
    let cases = [
        ("/a%20b", "b1710c64a34622246d352aec794c0393f582e2f411e83ca0b9fb7454c4f188f7"),
        ("/caf%C3%A9/100%25", "8cde00e3fcacabb1cab62931d5c880b74c7618e5689652168e86cf14b03186d9"),
        ("/a(1)+b=c,d@e!$'*&:", "a28a2052707e3d97c729b8343cea6c695a0219a691c4de0c8f42490d5f99ab83"),
        ("/plain/path", "37f2cec60f65cbecbc518bd0d9595fad88b78a967e08cb68b4098a5a3cc8f264"),
    ];
    let authority = "abc123.execute-api.eu-central-1.amazonaws.com";
    for (path, expected) in cases {
        assert_eq!(signature(&Request { authority, ..request(path, &[]) }, KEYS, "execute-api"), expected, "{path}");
    }
    let once = "183ed403a73ebba8bb1fb9e2976efa1cf6dc432bb625de3bd3db356b83fe82e3";
    assert_eq!(signature(&request("/a%20b", &[]), KEYS, "s3"), once);
    let unsigned = Request { method: "PUT", payload: Payload::Unsigned, ..request("/a%20b", &[]) };
    let unsigned = sign(&unsigned, KEYS, scope("s3"), Rules::of("s3"), Location::Headers).unwrap();
    assert_eq!(unsigned.signature.as_str(), "0a4ba0d81697fcf81dee9341c462a4f5217b6af84faf17213da8def77d63f64b");
    let digest = unsigned.headers.iter().find(|(name, _)| *name == "x-amz-content-sha256");
    assert_eq!(digest.map(|(_, value)| value.as_str()), Some("UNSIGNED-PAYLOAD"));
}

#[test]
fn an_object_store_keeps_its_path_and_shows_the_digest() {
    let signed = |path: &str, service: &str| {
        sign(&request(path, &[]), KEYS, scope(service), Rules::of(service), Location::Headers).unwrap()
    };
    assert_ne!(signed("/a//b", "s3").signature, signed("/a/b", "s3").signature);
    assert_eq!(signed("/a//b", "sts").signature, signed("/a/b", "sts").signature);
    let digest = |service: &str| signed("/a", service).headers.iter().any(|(name, _)| *name == "x-amz-content-sha256");
    assert!(digest("s3") && !digest("sts"));
}

#[test]
fn what_is_no_request_is_refused_without_a_panic() {
    for path in ["no-slash\u{7f}", "/line\nfeed", "/a b"] {
        let result = sign(&request(path, &[]), KEYS, scope("sts"), Rules::of("sts"), Location::Headers);
        assert!(result.is_err() || path == "/a b", "{path:?}");
    }
    let headers = [("x-amz-meta", "line\r\nfeed")];
    assert!(sign(&request("/", &headers), KEYS, scope("sts"), Rules::of("sts"), Location::Headers).is_err());
    let request = Request { authority: "", ..request("/", &[]) };
    assert!(sign(&request, KEYS, scope("sts"), Rules::of("sts"), Location::Headers).is_err());
}
