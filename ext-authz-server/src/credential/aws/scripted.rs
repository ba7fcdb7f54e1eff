//! An STS on loopback that answers as a test says, for what moto never answers.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;

/// A status and a document.
pub(super) type Answer = (u16, String);

/// A running one.
pub(super) struct Sts {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

// === impl Sts ===

impl Sts {
    /// Answers who asks for a role with these in order, and with the last one from then on. To who asks who it is, it says so.
    pub(super) async fn start(answers: Vec<Answer>) -> Sts {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answers) = (Arc::clone(&asked), Arc::new(answers));
        let router = Router::new().fallback(move |form: String| {
            let (status, document) = if form.contains("Action=GetCallerIdentity") {
                identity()
            } else {
                let mut log = log.lock().unwrap();
                log.push(form);
                answers[(log.len() - 1).min(answers.len() - 1)].clone()
            };
            let status = StatusCode::from_u16(status).unwrap();
            async move { (status, [("content-type", "text/xml")], document) }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Sts { url, asked }
    }

    /// The forms that asked for a role, oldest first.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Keys for a role.
pub(super) fn keys() -> Answer {
    let keys = "<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>an-example-secret-key</SecretAccessKey>\
                <SessionToken>an-example-session-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>";
    let result = format!("<AssumeRoleResult><Credentials>{keys}</Credentials></AssumeRoleResult>");
    (200, format!("<AssumeRoleResponse>{result}</AssumeRoleResponse>"))
}

/// A refusal in AWS's words.
pub(super) fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>r-1</RequestId></ErrorResponse>"))
}

fn identity() -> Answer {
    let arn = "<Arn>arn:aws:iam::111122223333:user/keyward</Arn>";
    let result = format!("<GetCallerIdentityResult>{arn}</GetCallerIdentityResult>");
    (200, format!("<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>"))
}
