//! What Keyward computes for a request: signatures, proofs of the gateway, and secrets in place of placeholders. Each is
//! checked over the bytes that the upstream received, by an implementation that is not Keyward's.

mod hmac;
mod placeholder;
mod proof;

use std::sync::{Arc, Mutex};

use http::Method;
use keyward_tests::client::{Request, RequestBody};
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};

use crate::scripted;

/// Allows everything: what is shown here comes after policy.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "all", "explanation": "a test"}
"#;

/// The text of every request that an upstream received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<String>>>);

impl Received {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The last request: its first line without the protocol, and itself.
    fn last(&self) -> (String, String) {
        let request = self.all().last().cloned().unwrap_or_default();
        let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        (line, request)
    }
}

/// An upstream of plain HTTP below `/scripted` that notes what it gets, with these credentials.
async fn upstream(name: &str, credentials: Value) -> (Builder, Received) {
    showing(name, credentials, |_| "done".to_owned()).await
}

/// The same, which answers with what `shows` makes of a request.
async fn showing(
    name: &str,
    credentials: Value,
    shows: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (Builder, Received) {
    let received = Received::default();
    let notes = received.clone();
    let address = scripted::start(move |request| {
        notes.0.lock().unwrap().push(request.to_owned());
        scripted::response("200 OK", "content-type: text/plain\r\n", shows(request).as_bytes())
    })
    .await;
    let builder = Stack::builder(name).policy(POLICY);
    let builder = scripted::route(builder, address, "http").config(move |config| {
        config["bindings"][0]["servers"] = json!(["demo"]);
        let binding = json!({
            "id": "scripted", "mode": "service_account", "owner": "team", "environment": "development",
            "servers": ["scripted"], "hosts": [scripted::AUTHORITY], "credentials": credentials,
        });
        if let Some(bindings) = config["bindings"].as_array_mut() {
            bindings.push(binding);
        }
    });
    (builder, received)
}

fn post(target: &str, content_type: &str, body: &str) -> Request {
    let mut request =
        Request::new(Method::POST, &format!("{}{target}", scripted::PATH)).header("content-type", content_type);
    request.body = RequestBody::Whole(body.to_owned().into());
    request
}

fn body_of(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
