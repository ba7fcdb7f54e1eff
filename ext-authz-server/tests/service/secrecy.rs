//! Nothing that was marked comes out where it does not belong.

use keyward_server::explain::{ExplainRequest, explain};
use keyward_server::log::{Captured, Format, subscriber};

use super::scene::{PASSWORD, SECRET, Scene, TOKEN, call};

#[tokio::test]
async fn no_secret_token_or_argument_is_in_logs_at_trace_in_the_audit_trail_or_in_pages() {
    let captured = Captured::default();
    tracing::subscriber::set_global_default(subscriber("trace", Format::Text, captured.clone()).unwrap()).unwrap();
    let scene = Scene::start().await;
    scene.check(&call("echo")).await.allowed();
    scene.check(&call("both")).await.allowed();
    let mut panicking = call("echo");
    panicking.token = Some("Bearer panic");
    scene.check(&panicking).await.denied();
    let explained =
        explain(&scene.engine.plan(), ExplainRequest { message: &call("both").message(), principal: None }).await;
    assert!(explained.allowed, "{explained}");
    assert!(explained.to_string().contains("set: yes"), "{explained}");
    scene.last_decision();
    let pages = [scene.page("/metrics").await.1, scene.page("/readyz").await.1];
    let everything = [captured.text(), scene.trail.text(), pages.concat(), explained.to_json(), explained.to_string()];
    let token = TOKEN.trim_start_matches("Bearer ");
    for (n, text) in everything.iter().enumerate() {
        for marked in [SECRET, PASSWORD, token, "canary-argument", "c3ZjOmNhbmFyeS05YjFjLXBhc3N3b3Jk"] {
            assert!(!text.contains(marked), "{marked} in {n}: {text}");
        }
    }
}
