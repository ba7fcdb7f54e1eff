//! What Keyward signs, AWS accepts: every service, headers and presigned URLs, odd keys and queries. What an agent sends in
//! place of a signature does not count.

use bytes::Bytes;
use http::Method;
use keyward_tests::client::{Protocol, Request, RequestBody};
use serde_json::json;

use super::scene::{self, form_call, json_call, request, who_am_i};
use crate::search::Search;

fn put(target: &str, body: &'static str) -> Request {
    let mut request = request(Method::PUT, "s3", target);
    request.body = RequestBody::Whole(Bytes::from_static(body.as_bytes()));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_accepts_what_keyward_signs() {
    let scene = scene::start("aws-signing", |_| {}).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answer = scene.send(who_am_i().protocol(protocol)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains(":assumed-role/agents-acme/alice+demo-agent<"), "{}", answer.text());

        let get = json!({"SecretId": "db"});
        let answer = scene.send(json_call("secretsmanager", "secretsmanager.GetSecretValue", &get)).await;
        assert_eq!(answer.json().unwrap()["SecretString"], "database-password-1", "{}", answer.text());

        let get = json!({"Name": "/prod/db", "WithDecryption": true});
        let answer = scene.send(json_call("ssm", "AmazonSSM.GetParameter", &get)).await;
        assert_eq!(answer.json().unwrap()["Parameter"]["Value"], "parameter-value-1", "{}", answer.text());
    }
    let record = scene.stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["bindings"][0]["id"], scene::BINDING, "{record}");
    assert_eq!(scene.moto.asked("AssumeRole").await.unwrap().len(), 1, "one session serves all calls");

    // What the role may not do, moto refuses: it is the role that asks.
    let answer = scene.send(form_call("sts", "Action=GetSessionToken&Version=2011-06-15")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_with_odd_keys_and_queries_are_written_read_and_listed() {
    let scene = scene::start("aws-objects", |_| {}).await;
    // As the agent writes it, and as it arrives: one spelling for whoever recomputes the signature.
    let keys = [
        ("/documents/plain.txt", "/documents/plain.txt"),
        ("/documents/a%20b/c.txt", "/documents/a%20b/c.txt"),
        ("/documents/a(1)+b=c,d@e!$'*&:", "/documents/a%281%29%2Bb%3Dc%2Cd%40e%21%24%27%2A%26%3A"),
        ("/documents/%C3%A9t%C3%A9~_-.", "/documents/%C3%A9t%C3%A9~_-."),
        ("/documents/%41%2d", "/documents/A-"),
    ];
    for (sent, arrives) in keys {
        scene.moto.forget().await.unwrap();
        let answer = scene.send(put(sent, "a body to be signed")).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        let received = scene.received("s3").await;
        assert_eq!(received[0]["target"], arrives, "{sent}");
        assert_eq!(received[0]["headers"]["x-amz-content-sha256"].as_str().unwrap().len(), 64, "{sent}");
        let answer = scene.send(request(Method::GET, "s3", sent)).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "a body to be signed"), "{sent}");
    }
    let queries =
        ["?list-type=2&prefix=a/", "?list-type=2&prefix=a%20b", "?prefix=a+b&delimiter=%2F&max-keys=7", "?location"];
    for query in queries {
        let answer = scene.send(request(Method::GET, "s3", &format!("/documents{query}"))).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert!(!answer.text().contains("<Error>"), "{query}: {}", answer.text());
    }
    let answer = scene.send(request(Method::DELETE, "s3", "/documents/plain.txt")).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    // Metadata and content type are under the signature, too.
    let tagged = put("/documents/meta", "x").header("x-amz-meta-owner", "a  b").header("content-type", "text/x-odd");
    assert_eq!(scene.send(tagged).await.status, 200);
    let sent = scene.received("s3").await.pop().unwrap();
    let signed = sent["headers"]["authorization"].as_str().unwrap();
    assert!(
        signed.contains("SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-owner;"),
        "{signed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_an_api_is_encoded_once_more_under_its_signature() {
    let (moto, gateway) = scene::prepared("aws-api").await;
    let api = format!("abc123.{}", scene::host("execute-api"));
    let builder = scene::builder("aws-api", &moto, &gateway, &scene::role_source(&moto)).config(|config| {
        scene::reach(config, &api);
        config["bindings"][1]["credentials"][0]["services"] = json!(["s3", "execute-api"]);
    });
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    for target in [
        "/a%20b",
        "/prod/@connections/JBDvjfGEIAMCERw%3D",
        "/caf%C3%A9/100%25?x=a%20b&y",
        "/a(1)+b=c,d@e!$*:",
        "/plain",
    ] {
        scene.moto.forget().await.unwrap();
        let mut call = Request::new(Method::POST, target).authority(&api);
        call.body = RequestBody::Whole(Bytes::from_static(b"a body to be signed"));
        let answer = scene.send(call).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "verified"), "{target}");
        let all = scene.moto.received().await.unwrap();
        let sent = all.iter().find(|request| request["headers"]["host"] == api.as_str()).unwrap();
        assert_eq!((&sent["target"], &sent["body"]), (&json!(target), &json!("a body to be signed")));
        let signed = sent["headers"]["authorization"].as_str().unwrap();
        assert!(signed.contains("/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date;"), "{signed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_or_region_than_those_allowed_is_denied_and_nothing_leaves() {
    let cases = [
        ("sqs.eu-central-1.amazonaws.com", "is of the service `sqs`, which is not allowed"),
        ("s3.eu-west-1.amazonaws.com", "is of the region `eu-west-1`, which is not allowed"),
        ("store.internal", "does not say which service it is of"),
    ];
    let (moto, gateway) = scene::prepared("aws-not-allowed").await;
    let builder = scene::builder("aws-not-allowed", &moto, &gateway, &scene::role_source(&moto));
    let builder = builder.config(|config| cases.iter().for_each(|(host, _)| scene::reach(config, host)));
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    for (host, problem) in cases {
        let answer = scene.send(Request::new(Method::GET, "/documents").authority(host)).await;
        let cause = scene.denied(&answer).await;
        assert!(cause.contains(problem), "{host}: {cause}");
        assert!(!answer.text().contains(problem), "{}", answer.text());
        let all = scene.moto.received().await.unwrap();
        assert!(all.iter().all(|request| request["headers"]["host"] != host), "{host} was called");
    }
    let answer = scene.send(request(Method::GET, "s3", "/documents")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_body_says_so_in_a_header_that_aws_verifies() {
    let (moto, gateway) = scene::prepared("aws-unsigned").await;
    let builder = scene::builder("aws-unsigned", &moto, &gateway, &scene::role_source(&moto)).config(|config| {
        let credential = &mut config["bindings"][1]["credentials"][0];
        credential["services"] = json!(["s3"]);
        credential["payload"] = json!("unsigned");
    });
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send(put("/documents/a%20b", "nobody digests this")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = scene.send(request(Method::GET, "s3", "/documents/a%20b")).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "nobody digests this"));
    let received = scene.received("s3").await;
    assert_eq!(received.len(), 2);
    for sent in received {
        assert_eq!(sent["headers"]["x-amz-content-sha256"], "UNSIGNED-PAYLOAD", "{sent}");
        let signed = sent["headers"]["authorization"].as_str().unwrap();
        assert!(signed.contains("host;x-amz-content-sha256;x-amz-date;"), "{signed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_sends_as_a_signature_is_replaced() {
    let scene = scene::start("aws-replaced", |_| {}).await;
    let forged = "AWS4-HMAC-SHA256 Credential=AKIAFORGED/20260101/eu-central-1/sts/aws4_request, SignedHeaders=host, Signature=f0";
    let request = who_am_i()
        .header("x-amz-date", "20200101T000000Z")
        .header("x-amz-security-token", "forged-session-token")
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .header("x-authorization", forged);
    let answer = scene.send(request).await;
    assert!(answer.text().contains("assumed-role/agents-acme/alice+demo-agent<"), "{}", answer.text());
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAFORGED%2F20260101&X-Amz-Date=20200101T000000Z\
                 &X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Security-Token=forged&X-Amz-Signature=f0";
    let target = format!("/documents?list-type=2&{query}&prefix=a");
    let answer = scene.send(scene::request(Method::GET, "s3", &target)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let all = serde_json::to_string(&scene.moto.received().await.unwrap()).unwrap();
    for forged in ["AKIAFORGED", "forged", "20200101T000000Z", "UNSIGNED-PAYLOAD"] {
        assert!(!all.contains(forged), "`{forged}` reached AWS");
    }
    assert_eq!(scene.received("s3").await[0]["target"], "/documents?list-type=2&prefix=a");
    assert!(!all.contains(&scene.token("alice", scene::TENANT)[..40]), "the agent's token reached AWS");

    // In another spelling the query is refused.
    scene.moto.forget().await.unwrap();
    for query in ["x-amz-signature=f0", "X-Amz-%53ignature=f0"] {
        let answer = scene.send(scene::request(Method::GET, "s3", &format!("/documents?{query}"))).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    assert!(scene.moto.received().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_by_aws_and_a_broken_one_by_keyward() {
    let (moto, gateway) = scene::prepared("aws-wrong-key").await;
    let wrong = json!({
        "type": "static",
        "access_key_id": {"ref": "file://secrets/id"},
        "secret_access_key": {"ref": "file://secrets/key"},
    });
    let builder = scene::builder("aws-wrong-key", &moto, &gateway, &wrong);
    let builder = builder.file("secrets/id", &gateway.id).file("secrets/key", "not-the-secret-of-that-key-at-all");
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send(who_am_i()).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("SignatureDoesNotMatch"), "{}", answer.text());
    // The right one is taken up without a restart.
    scene.stack.change_file("secrets/key", &scene.gateway.secret).unwrap();
    let answer = scene.send(who_am_i()).await;
    assert!(answer.text().contains(":user/gateway<"), "{}", answer.text());

    scene.moto.forget().await.unwrap();
    scene.stack.change_file("secrets/key", format!("{}\n", scene.gateway.secret)).unwrap();
    let answer = scene.send(who_am_i()).await;
    let cause = scene.denied(&answer).await;
    assert!(cause.contains("trim_newline"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presigned_url_is_accepted_and_short_lived() {
    let (moto, gateway) = scene::prepared("aws-presigned").await;
    let source = scene::role_source(&moto);
    let builder = scene::builder("aws-presigned", &moto, &gateway, &source).config(|config| {
        let credential = &mut config["bindings"][1]["credentials"][0];
        credential["services"] = json!(["s3"]);
        credential["signature"] = json!("query");
        credential["payload"] = json!("unsigned");
        credential["presigned_secs"] = json!(30);
    });
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    assert_eq!(scene.send(put("/documents/a%20(1).txt", "presigned")).await.status, 200);
    let answer = scene.send(request(Method::GET, "s3", "/documents/a%20(1).txt?versionId=null")).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "presigned"));
    for sent in scene.received("s3").await {
        let target = sent["target"].as_str().unwrap();
        assert!(
            target.contains("X-Amz-Expires=30&X-Amz-Security-Token=") && target.contains("&X-Amz-Signature="),
            "{target}"
        );
        assert!(sent["headers"].get("authorization").is_none(), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_s_unsigned_chunks_pass_and_chunks_it_signed_do_not() {
    let scene = scene::start("aws-chunks", |_| {}).await;
    let chunked = |body: &'static str, length: usize| {
        put("/documents/chunks", body)
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", length.to_string())
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    };
    let answer = scene.send(chunked("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 5)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = scene.received("s3").await.pop().unwrap();
    assert_eq!(sent["headers"]["x-amz-content-sha256"], "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let answer = scene.send(request(Method::GET, "s3", "/documents/chunks")).await;
    assert_eq!(answer.text(), "hello");

    scene.moto.forget().await.unwrap();
    let answer = scene.send(chunked("5;chunk-signature=f0\r\nhello\r\n0;chunk-signature=f0\r\n\r\n", 5)).await;
    let cause = scene.denied(&answer).await;
    assert!(cause.contains("chunks that the client signed"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_signature_comes_back() {
    // An upstream that shows whatever it received, as debugging endpoints do.
    let echo = crate::scripted::start(|request| {
        crate::scripted::response("200 OK", "content-type: text/plain\r\n", request.as_bytes())
    })
    .await;
    let (moto, gateway) = scene::prepared("aws-echo").await;
    let builder = scene::builder("aws-echo", &moto, &gateway, &scene::role_source(&moto));
    let stack = builder
        .envoy(|envoy| envoy.clusters[0].endpoint = keyward_tests::envoy::Endpoint::Tcp(echo))
        .start()
        .await
        .unwrap();
    moto.enforce().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send(who_am_i()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let value = |name: &str| crate::scripted::header(&text, name).to_owned();
    assert!(value("x-amz-date").len() == 16, "the echo shows what it received: {text}");
    let token = value("x-amz-security-token");
    assert!(token.starts_with("REDACTED"), "{token}");
    let signature = value("authorization");
    assert!(signature.contains("Signature=") && !signature.contains("ASIA"), "{signature}");
    let hexadecimal = |text: &str| text.len() == 64 && text.chars().all(|char| char.is_ascii_hexdigit());
    assert!(!signature.split(['=', ',', ' ', '/']).any(hexadecimal), "{signature}");
    // What STS handed out is in nothing that was written, either.
    let written = scene.stack.everything_written().await.unwrap();
    for secret in [&scene.gateway.secret, &scene.stack.secret] {
        assert_eq!(Search::new(secret).find(written.as_bytes()), None);
    }
}
