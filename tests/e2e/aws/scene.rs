//! A stack whose upstream is an AWS on loopback.

use http::Method;
use keyward_tests::client::{Answer, Request, RequestBody};
use keyward_tests::envoy::{Route, UpstreamCluster};
use keyward_tests::issuer::Token;
use keyward_tests::moto::{AccessKey, Moto, REGION};
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, ROLE, Stack};
use keyward_tests::{envoy, files};
use serde_json::{Value, json};

/// The key that external ids are derived with.
pub(super) const EXTERNAL_ID_KEY: &str = "an external id key of more than thirty-two bytes";
/// The binding of the role.
pub(super) const BINDING: &str = "aws-role";
/// The tenant of most tests.
pub(super) const TENANT: &str = "acme";

/// Allows the role to call AWS, and nothing else.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "aws", "explanation": "a test"} if {
    input.operation.kind == "http"
    input.server.name == "aws"
    "demo-user" in input.principal.roles
}
"#;

/// A stack, and the AWS behind it.
pub(super) struct Scene {
    pub(super) moto: Moto,
    pub(super) stack: Stack,
    pub(super) gateway: AccessKey,
}

/// A host of a service in the tests' region.
pub(super) fn host(service: &str) -> String {
    format!("{service}.{REGION}.amazonaws.com")
}

/// A policy that allows these actions.
pub(super) fn allow(actions: &[&str]) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
}

/// A trust policy for the gateway's user under this external id.
pub(super) fn trust(external_id: &str) -> Value {
    let gateway = format!("arn:aws:iam::{}:user/gateway", keyward_tests::moto::ACCOUNT);
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"AWS": gateway},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
    }]})
}

/// What a `role` source holds in most tests.
pub(super) fn role_source(moto: &Moto) -> Value {
    json!({
        "type": "role",
        "role_arn": format!("arn:aws:iam::{}:role/agents-{{tenant}}", keyward_tests::moto::ACCOUNT),
        "external_id": {"type": "derived", "key": {"ref": "file://secrets/external-id-key"}},
        "sts": {"endpoint": format!("http://{}", moto.address)},
    })
}

/// A stack in the making whose server `aws` goes to moto, with an `aws` credential from this source.
pub(super) fn builder(name: &str, moto: &Moto, gateway: &AccessKey, source: &Value) -> Builder {
    let services = ["s3", "secretsmanager", "ssm", "sts"];
    let route = Route { prefix: "/".to_owned(), cluster: "aws".to_owned(), metadata: json!({"mode": "http"}) };
    let address = moto.address;
    let source = source.clone();
    Stack::builder(name)
        .policy(POLICY)
        .file("secrets/external-id-key", EXTERNAL_ID_KEY)
        // The official chain finds these first.
        .variable("AWS_ACCESS_KEY_ID", &gateway.id)
        .variable("AWS_SECRET_ACCESS_KEY", &gateway.secret)
        .variable("AWS_EC2_METADATA_DISABLED", "true")
        .envoy(|envoy: &mut envoy::Options| {
            envoy.routes.push(route);
            envoy.clusters.push(UpstreamCluster::tcp("aws", address));
            envoy.plugin.push(("timeout_ms".to_owned(), json!(5000)));
        })
        .config(|config| {
            let destinations: Vec<Value> = services.iter().map(|name| json!({"host": host(name), "path": "/"})).collect();
            config["identity"]["issuers"][0]["tenant_claim"] = json!("tenant");
            config["servers"]["aws"] = json!({"mode": "http", "destinations": destinations, "cluster": "aws"});
            let binding = json!({
                "id": BINDING,
                "mode": "service_account",
                "owner": "platform-team",
                "environment": "development",
                "servers": ["aws"],
                "hosts": services.map(host),
                "credentials": [{"type": "aws", "regions": [REGION, "us-east-1"], "services": services, "source": source}],
            });
            if let Some(bindings) = config["bindings"].as_array_mut() {
                bindings.push(binding);
            }
        })
}

/// Lets agents reach another host, and the binding's credential go there; for what it is signed stays as it is.
pub(super) fn reach(config: &mut Value, host: &str) {
    let destination = json!({"host": host, "path": "/"});
    for (list, entry) in [("/servers/aws/destinations", destination), ("/bindings/1/hosts", json!(host))] {
        if let Some(list) = config.pointer_mut(list).and_then(Value::as_array_mut) {
            list.push(entry);
        }
    }
}

/// Moto with the gateway's user and a role for [`TENANT`], everything that the tests read, and nothing enforced yet.
pub(super) async fn prepared(name: &str) -> (Moto, AccessKey) {
    let folder = files::run_folder(&format!("{name}-moto")).unwrap();
    let moto = Moto::start("moto", &folder).unwrap();
    let gateway = moto.user("gateway", &allow(&["sts:AssumeRole", "secretsmanager:*", "ssm:*"])).await.unwrap();
    let actions = ["s3:*", "secretsmanager:GetSecretValue", "ssm:GetParameter"];
    let external_id = derived(TENANT);
    moto.role(&format!("agents-{TENANT}"), &trust(&external_id), &allow(&actions)).await.unwrap();
    moto.bucket("documents").await.unwrap();
    let secret = json!({"Name": "db", "SecretString": "database-password-1"});
    moto.json("secretsmanager", "secretsmanager.CreateSecret", &secret).await.unwrap();
    let parameter = json!({"Name": "/prod/db", "Type": "SecureString", "Value": "parameter-value-1"});
    moto.json("ssm", "AmazonSSM.PutParameter", &parameter).await.unwrap();
    (moto, gateway)
}

/// Everything up, with the source changed by `change`, and IAM enforced.
pub(super) async fn start(name: &str, change: impl FnOnce(&mut Value)) -> Scene {
    let (moto, gateway) = prepared(name).await;
    let mut source = role_source(&moto);
    change(&mut source);
    let stack = builder(name, &moto, &gateway, &source).start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    Scene { moto, stack, gateway }
}

/// The external id that a tenant's role has to demand, computed here a second time.
pub(super) fn derived(tenant: &str) -> String {
    use base64::Engine as _;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, EXTERNAL_ID_KEY.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, format!("keyward aws external id 1\0{tenant}").as_bytes());
    format!("keyward-{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// A request of an agent to a service.
pub(super) fn request(method: Method, service: &str, target: &str) -> Request {
    Request::new(method, target).authority(&host(service))
}

/// A call of the JSON protocol.
pub(super) fn json_call(service: &str, target: &str, body: &Value) -> Request {
    let request = request(Method::POST, service, "/").header("x-amz-target", target);
    let mut request = request.header("content-type", "application/x-amz-json-1.1");
    request.body = RequestBody::Whole(body.to_string().into());
    request
}

/// A call of the query protocol.
pub(super) fn form_call(service: &str, form: &str) -> Request {
    let request = request(Method::POST, service, "/");
    let mut request = request.header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    request.body = RequestBody::Whole(form.to_owned().into());
    request
}

/// Who am I, says STS.
pub(super) fn who_am_i() -> Request {
    form_call("sts", "Action=GetCallerIdentity&Version=2011-06-15")
}

impl Scene {
    /// A token of this subject and tenant.
    pub(super) fn token(&self, subject: &str, tenant: &str) -> String {
        self.stack.issuer.sign(&Token::new(subject, &[ROLE]).claim("tenant", tenant)).unwrap()
    }

    /// Sends as alice of [`TENANT`].
    pub(super) async fn send(&self, request: Request) -> Answer {
        self.send_as(request, "alice", TENANT).await
    }

    pub(super) async fn send_as(&self, request: Request, subject: &str, tenant: &str) -> Answer {
        self.stack.send_bare(request.bearer(&self.token(subject, tenant))).await.unwrap()
    }

    /// What reached the upstream for this service, oldest first: the calls that an agent made, not those to STS that
    /// Keyward made.
    pub(super) async fn received(&self, service: &str) -> Vec<Value> {
        let all = self.moto.received().await.unwrap();
        all.into_iter().filter(|request| request["headers"]["host"] == host(service).as_str()).collect()
    }

    /// The answer is Keyward's denial for want of a credential, and no service of AWS was called. The operator's cause.
    pub(super) async fn denied(&self, answer: &Answer) -> String {
        assert_eq!(answer.json().unwrap()["error"]["reason"], "credential_unavailable", "{}", answer.text());
        for service in ["s3", "secretsmanager", "ssm", "sts"] {
            assert!(self.received(service).await.is_empty(), "{service} was called");
        }
        let decision = answer.json().unwrap()["error"]["decision_id"].as_str().unwrap().to_owned();
        let record = self.stack.server.decision(&decision).await.unwrap();
        record["explanation"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a command of `keyward` on this stack's configuration, in its server's environment.
    pub(super) fn keyward(&self, arguments: &[&str]) -> std::process::Output {
        let config = self.stack.folder.join("keyward.yaml").display().to_string();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--config", &config]).collect();
        let environment = [
            ("AWS_ACCESS_KEY_ID".to_owned(), self.gateway.id.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.gateway.secret.clone()),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
            ("KEYWARD_AUDIT_KEY".to_owned(), "an audit key for a command".to_owned()),
        ];
        Server::run(&arguments, &environment).unwrap()
    }
}
