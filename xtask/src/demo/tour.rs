//! The tour: what happens to a call, step by step, each step checked.

use anyhow::{Result, anyhow, bail};
use keyward_tests::agent;
use keyward_tests::client::Answer;
use keyward_tests::files;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

/// What stands in an answer for a credential that was in base64.
const MARKER_IN_BASE64: &str = "UkVEQUNURUR";

/// Shows every step.
///
/// # Errors
/// Says how many steps did not come out right.
pub(super) async fn run(stack: &Stack) -> Result<()> {
    let mut tour = Tour { stack, step: 0, wrong: 0 };
    tour.without_token().await;
    tour.allowed().await;
    tour.received_by_the_upstream().await;
    tour.leaked().await;
    tour.forbidden().await;
    tour.guarded().await;
    tour.audited().await;
    tour.rotated().await;
    tour.pasted().await;
    match tour.wrong {
        0 => {
            println!("\nEvery step came out right.");
            Ok(())
        }
        wrong => bail!("{wrong} of {} steps did not come out right; logs: {}", tour.step, stack.folder.display()),
    }
}

struct Tour<'a> {
    stack: &'a Stack,
    step: u32,
    wrong: u32,
}

// === impl Tour ===

impl Tour<'_> {
    async fn without_token(&mut self) {
        self.title("An agent without a token calls `echo`");
        let checked = async {
            let answer = self.stack.send_bare(agent::tool_call(1, "echo", json!({"message": "hello"}))).await?;
            show(&answer);
            println!("   WWW-Authenticate: {}", answer.header("www-authenticate"));
            expect(answer.status == 401, "the answer is 401")?;
            expect(answer.header("www-authenticate").starts_with("Bearer"), "it asks for a bearer token")?;
            expect(self.stack.upstream.count().await? == 0, "the upstream received nothing")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn allowed(&mut self) {
        self.title("With its token it calls `echo`: allowed");
        let checked = async {
            let answer = self.stack.call_tool("echo", json!({"message": "hello"})).await?;
            show(&answer);
            expect(answer.result()?["content"][0]["text"] == "hello", "the answer is the upstream's")?;
            self.expect_no_secret(&answer)
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn received_by_the_upstream(&mut self) {
        self.title("What the upstream received");
        let checked = async {
            let last = self.stack.upstream.last().await?;
            for pair in last["headers"].as_array().into_iter().flatten() {
                println!("   {}: {}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
            }
            let has = |name: &str, value: &str| {
                let headers = last["headers"].as_array();
                headers.is_some_and(|pairs| pairs.iter().any(|pair| pair[0] == name && pair[1] == value))
            };
            expect(has("x-api-key", &self.stack.secret), "the credential that the agent never had")?;
            expect(!last.to_string().contains(&self.stack.token), "not the agent's token")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn leaked(&mut self) {
        self.title("A careless upstream puts the credential into its answer: `leak`");
        let checked = async {
            let answer = self.stack.call_tool("leak", json!({"carrier": "text", "form": "raw"})).await?;
            show(&answer);
            answer.result()?;
            self.expect_no_secret(&answer)?;
            expect(answer.text().contains("REDACTED"), "it was replaced")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn forbidden(&mut self) {
        self.title("It calls `delete_everything`: outside the policy");
        let checked = async {
            let before = self.stack.upstream.count().await?;
            let answer = self.stack.call_tool("delete_everything", json!({})).await?;
            show(&answer);
            let reason = &answer.response()?["error"]["data"]["reason"];
            expect(answer.status == 200 && *reason == "not_allowed", "a JSON-RPC error with the reason")?;
            expect(self.stack.upstream.count().await? == before, "the upstream received nothing")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn guarded(&mut self) {
        self.title("It puts somebody's payment key into an argument of `echo`");
        let checked = async {
            let before = self.stack.upstream.count().await?;
            // Put together here, so that nobody's scanner takes this file for a leak.
            let token = ["sk", "_live_", "4eC39HqLyjWDarjtT1zdp7dcQ2x"].concat();
            let answer = self.stack.call_tool("echo", json!({"message": format!("use {token}")})).await?;
            show(&answer);
            let reason = &answer.response()?["error"]["data"]["reason"];
            expect(*reason == "secret_in_request", "what looks like a credential does not leave")?;
            expect(self.stack.upstream.count().await? == before, "the upstream received nothing")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn rotated(&mut self) {
        self.title("The credential is rotated: a new value in its file, and nothing else is touched");
        let checked = async {
            let calls = self.rotate(super::NEXT_SECRET).await?;
            expect(true, &format!("the upstream received the new value after {calls} calls, all of them answered"))?;
            let answer = self.stack.call_tool("leak", json!({"carrier": "text", "form": "raw"})).await?;
            self.expect_no_secret(&answer)?;
            expect(!answer.text().contains(super::NEXT_SECRET), "nor the new one")?;
            expect(self.rotate(&self.stack.secret).await? > 0, "and back")
        };
        let checked = checked.await;
        self.note(checked);
    }

    /// Puts a new value behind the reference and calls until it arrives. How many calls that took.
    async fn rotate(&self, value: &str) -> Result<usize> {
        self.stack.change_file("secrets/demo", value)?;
        for calls in 1..=100 {
            let answer = self.stack.call_tool("echo", json!({"message": "hello"})).await?;
            if answer.status != 200 || answer.result().is_err() {
                bail!("call {calls} failed: {}", answer.text());
            }
            if self.stack.upstream.last().await?.to_string().contains(&json!(value).to_string()) {
                return Ok(calls);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("the new value did not arrive within ten seconds")
    }

    async fn audited(&mut self) {
        self.title("The audit records");
        let checked = async {
            let echoed = |record: &Value| record["event"] == "secret_echoed";
            self.stack.server.audit_record(echoed).await?;
            let records = self.stack.server.audit()?;
            for record in &records {
                println!("   {}", line(record));
            }
            let count = |decision: &str| records.iter().filter(|record| record["decision"] == decision).count();
            expect(count("allow") == 2 && count("deny") == 3, "two calls allowed, three denied")?;
            let text: String = records.iter().map(Value::to_string).collect();
            expect(!text.contains(&self.stack.secret) && !text.contains(&self.stack.token), "no secret, no token")
        };
        let checked = checked.await;
        self.note(checked);
    }

    async fn pasted(&mut self) {
        self.title("What README.md says to paste");
        if std::process::Command::new("curl").arg("--version").output().is_err() {
            return println!("   skipped: there is no `curl` here");
        }
        let checked = async {
            let mut shell = tokio::process::Command::new("sh");
            let output = shell.args(["-euc", super::usage()]).current_dir(files::workspace()).output().await?;
            let out = String::from_utf8_lossy(&output.stdout);
            for text in out.lines() {
                println!("   {text}");
            }
            let err = String::from_utf8_lossy(&output.stderr);
            expect(output.status.success(), "each command ended well")
                .map_err(|error| error.context(err.into_owned()))?;
            let answer = out.lines().find(|line| line.contains("\"result\"")).unwrap_or_default();
            expect(answer.contains(MARKER_IN_BASE64), "the answer is scrubbed, and still base64")?;
            self.expect_no_secret_in(answer)?;
            expect(out.contains(&self.stack.secret), "the upstream received the credential")?;
            expect(out.contains("\"binding"), "the audit record names the binding")
        };
        let checked = checked.await;
        self.note(checked);
    }

    fn expect_no_secret(&self, answer: &Answer) -> Result<()> {
        self.expect_no_secret_in(&String::from_utf8_lossy(&answer.everything()))
    }

    fn expect_no_secret_in(&self, text: &str) -> Result<()> {
        let encoded = keyward_tests::agent::base64(&self.stack.secret);
        let holds = text.contains(&self.stack.secret) || text.contains(encoded.trim_end_matches('='));
        expect(!holds, "no credential in it")
    }

    fn title(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. {text}", self.step);
    }

    fn note(&mut self, checked: Result<()>) {
        if let Err(error) = checked {
            self.wrong += 1;
            println!("   WRONG: {error:#}");
        }
    }
}

fn expect(holds: bool, what: &str) -> Result<()> {
    if !holds {
        return Err(anyhow!("{what}: it is not so"));
    }
    println!("   ok: {what}");
    Ok(())
}

fn show(answer: &Answer) {
    println!("   {}", answer.status);
    for text in answer.text().lines().filter(|text| !text.trim().is_empty()) {
        println!("   {text}");
    }
}

fn line(record: &Value) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
    let operation = format!("{} {}", text("/operations/0/method"), text("/operations/0/target"));
    let who = text("/principal/subject");
    match record["event"].as_str() {
        Some("decision") => {
            format!("decision {}: {operation}, by {who}, reason {}", text("/decision"), text("/reason"))
        }
        Some(event) => format!("{event} {}", record.get("redactions").map(|n| format!("x{n}")).unwrap_or_default()),
        None => record.to_string(),
    }
}
