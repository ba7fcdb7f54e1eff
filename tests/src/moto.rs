//! An AWS on loopback: moto, as `tests/moto/server.py` serves it. It recomputes signatures with botocore and enforces IAM.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::Value;

use crate::client::{self, Answer, Request, RequestBody};
use crate::process::Process;
use crate::server::address;
use crate::{files, tools};

/// The account that everything is in.
pub const ACCOUNT: &str = "123456789012";
/// The region of the tests.
pub const REGION: &str = "eu-central-1";
/// How long it may take to listen: Python compiles much at the first start.
const START: Duration = Duration::from_secs(90);

/// A running moto.
pub struct Moto {
    /// Where every service listens.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
}

/// An access key.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

// === impl Moto ===

impl Moto {
    /// Starts it, with nothing in it and nothing enforced.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(name: &str, folder: &Path) -> Result<Self> {
        let mut command = Command::new(tools::moto()?);
        command.arg(files::workspace().join("tests/moto/server.py"));
        let mut process = Process::start(name, command, folder)?;
        let announced = process.announcement(START)?;
        Ok(Self { address: address(&announced, "aws")?, process })
    }

    /// From now on signatures and policies count.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn enforce(&self) -> Result<()> {
        client::get(self.address, "/front/enforce").await.map(drop)
    }

    /// What it received, oldest first: `method`, `target`, `headers`, `body`, and `form` where it was one.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn received(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&client::get(self.address, "/front/requests").await?)?)
    }

    /// Forgets what it received.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn forget(&self) -> Result<()> {
        Request::new(Method::DELETE, "/front/requests").send(self.address).await.map(drop)
    }

    /// The forms that asked for this action, oldest first.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn asked(&self, action: &str) -> Result<Vec<Value>> {
        let received = self.received().await?.into_iter().map(|mut request| request["form"].take());
        Ok(received.filter(|form| form["Action"] == action).collect())
    }

    /// Prepares something by a call of the query protocol, before anything is enforced.
    ///
    /// # Errors
    /// Where it does not succeed.
    pub async fn form(&self, service: &str, fields: &[(&str, &str)]) -> Result<String> {
        let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request = self.request(service, Method::POST, "/");
        let mut request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body = RequestBody::Whole(form.join("&").into());
        self.done(request).await.map(|answer| answer.text())
    }

    /// Prepares something by a call of the JSON protocol, before anything is enforced.
    ///
    /// # Errors
    /// Where it does not succeed.
    pub async fn json(&self, service: &str, target: &str, body: &Value) -> Result<Value> {
        let request = self.request(service, Method::POST, "/").header("x-amz-target", target);
        let mut request = request.header("content-type", "application/x-amz-json-1.1");
        request.body = RequestBody::Whole(body.to_string().into());
        let answer = self.done(request).await?;
        Ok(serde_json::from_str(&answer.text()).unwrap_or_default())
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// Where it does not succeed.
    pub async fn bucket(&self, name: &str) -> Result<()> {
        let text = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        let mut request = self.request("s3", Method::PUT, &format!("/{name}"));
        request.body = RequestBody::Whole(text.into());
        self.done(request).await.map(drop)
    }

    /// Makes a user with this policy and a key.
    ///
    /// # Errors
    /// Where it does not succeed.
    pub async fn user(&self, name: &str, policy: &Value) -> Result<AccessKey> {
        self.form("iam", &[("Action", "CreateUser"), ("UserName", name)]).await?;
        let policy = policy.to_string();
        let fields =
            [("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "own"), ("PolicyDocument", &policy)];
        self.form("iam", &fields).await?;
        let answer = self.form("iam", &[("Action", "CreateAccessKey"), ("UserName", name)]).await?;
        Ok(AccessKey { id: element(&answer, "AccessKeyId")?, secret: element(&answer, "SecretAccessKey")? })
    }

    /// Makes a role with this trust policy and this policy; its ARN.
    ///
    /// # Errors
    /// Where it does not succeed.
    pub async fn role(&self, name: &str, trust: &Value, policy: &Value) -> Result<String> {
        let (trust, policy) = (trust.to_string(), policy.to_string());
        let fields = [("Action", "CreateRole"), ("RoleName", name), ("AssumeRolePolicyDocument", trust.as_str())];
        let arn = element(&self.form("iam", &fields).await?, "Arn")?;
        let fields = [
            ("Action", "PutRolePolicy"),
            ("RoleName", name),
            ("PolicyName", "own"),
            ("PolicyDocument", policy.as_str()),
        ];
        self.form("iam", &fields).await?;
        Ok(arn)
    }

    fn request(&self, service: &str, method: Method, path: &str) -> Request {
        let scope = format!("Credential=setup/20260101/{REGION}/{service}/aws4_request");
        let signed = format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none");
        Request::new(method, path).header("authorization", signed)
    }

    async fn done(&self, request: Request) -> Result<Answer> {
        let answer = request.send(self.address).await?;
        if !answer.status.is_success() {
            bail!("moto answered {}: {}", answer.status, answer.text());
        }
        Ok(answer)
    }
}

/// The text of the first element of this name.
///
/// # Errors
/// Where there is none.
pub fn element(xml: &str, name: &str) -> Result<String> {
    let text = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    text.map(|(text, _)| text.to_owned()).with_context(|| format!("no `{name}` in {xml}"))
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
