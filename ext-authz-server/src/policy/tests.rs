//! What policies decide, and that what cannot be decided is denied.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::binding::{Candidate, Mode};
use crate::config::{MethodClass, Risk, ServerMode};
use crate::identity::{Principal, PrincipalKind};
use crate::scratch::Scratch;

const LIMITS: Limits = Limits { timeout: Duration::from_millis(500), max_instructions: 1_000_000 };

fn policies() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"))
}

fn policy(rego: &str) -> Result<Policy, PolicyError> {
    policy_within(rego, LIMITS)
}

fn policy_within(rego: &str, limits: Limits) -> Result<Policy, PolicyError> {
    let dir = Scratch::new();
    dir.write("p.rego", &format!("package keyward\n\n{rego}\n"));
    Policy::load(dir.path(), limits)
}

fn decide(rego: &str) -> Verdict {
    policy(rego).unwrap().decide_value(Value::from(json!({"x": 1})))
}

fn principal(roles: &[&str]) -> Principal {
    Principal {
        key: Principal::key("jwt", "demo", PrincipalKind::User, "alice", Some("bot")),
        kind: PrincipalKind::User,
        subject: "alice".into(),
        issuer: "demo".into(),
        agent: Some("bot".into()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims: json!({"sub": "alice", "nested": {"n": 1.5, "list": [1, null, true]}}),
        tenant: "main".into(),
        expires_unix_secs: 1_785_240_600,
        ..Principal::nobody()
    }
}

fn call<'a>(principal: &'a Principal, tool: &'a str, arguments: serde_json::Value) -> Input<'a> {
    let arguments = Value::from(arguments);
    Input {
        revision: Some("2025-11-25"),
        environment: "development",
        server: "demo",
        mode: ServerMode::Mcp,
        principal,
        operation: Operation {
            kind: OperationKind::Request,
            method: "tools/call",
            target: Some(tool),
            arguments: Some(arguments.clone()),
            params: Some(Value::from(std::collections::BTreeMap::from([("arguments".into(), arguments)]))),
        },
        http: Http { method: "POST", path: "/mcp", authority: "mcp.example", class: MethodClass::Write },
        bindings: Some(&[]),
        source_address: Some("127.0.0.1"),
        unix_secs: 1_785_240_000,
    }
}

#[test]
fn every_rego_test_of_the_shipped_policy_holds() {
    let source = PolicySource::read_with_tests(&policies()).unwrap();
    let mut engine = source.engine().unwrap();
    let text = std::fs::read_to_string(policies().join("keyward_test.rego")).unwrap();
    let tests: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("test_")).filter_map(|rest| rest.split(' ').next()).collect();
    assert!(tests.len() >= 15, "{tests:?}");
    for test in tests {
        let result = engine.eval_rule(format!("data.keyward_test.test_{test}"));
        assert_eq!(result.unwrap_or_else(|error| panic!("test_{test}: {error}")), Value::from(true), "test_{test}");
    }
}

#[test]
fn the_shipped_policy_decides_as_the_demo_needs() {
    let policy = Policy::load(&policies(), LIMITS).unwrap();
    let demo = principal(&["demo-user"]);
    let allowed = |tool: &str, arguments| policy.decide(&call(&demo, tool, arguments));
    let echo = allowed("echo", json!({"message": "hello"}));
    assert!(echo.allow && echo.rule.as_deref() == Some("tool_by_role"), "{echo:?}");
    assert!(allowed("leak", json!({"carrier": "text", "form": "plain"})).allow);
    let denied = allowed("delete_everything", json!({}));
    assert!(!denied.allow && denied.failure.is_none(), "{denied:?}");
    assert!(allowed("echo", json!({"message": "x".repeat(1000)})).allow);
    for message in [json!("x".repeat(1001)), json!("a Forbidden word"), json!(7), json!(null)] {
        let verdict = allowed("echo", json!({"message": message}));
        assert!(!verdict.allow && verdict.rule.as_deref() == Some("argument_denied"), "{verdict:?}");
    }
    let stranger = principal(&[]);
    assert!(!policy.decide(&call(&stranger, "echo", json!({"message": "hello"}))).allow);
}

/// The compiled program must decide like the interpreter does.
#[test]
fn program_and_interpreter_agree() {
    let source = PolicySource::read(&policies()).unwrap();
    let policy = Policy::compile(&source, LIMITS).unwrap();
    let mut engine = source.engine().unwrap();
    for roles in [&[][..], &["demo-user"], &["demo-admin"], &["demo-user", "demo-admin", "nobody"]] {
        let principal = principal(roles);
        for tool in ["echo", "leak", "delete_everything", "none"] {
            for arguments in
                [json!({}), json!({"message": "m"}), json!({"message": "forbidden"}), json!({"message": [1]})]
            {
                for method in ["tools/call", "initialize", "resources/read", "nonsense"] {
                    let mut input = call(&principal, tool, arguments.clone());
                    input.operation.method = method;
                    engine.set_input(input.to_value());
                    let interpreted = engine.eval_rule(DECISION.to_owned()).unwrap();
                    assert_eq!(policy.decide(&input), Verdict::read(&interpreted), "{roles:?} {tool} {method}");
                }
            }
        }
    }
}

/// What policies/README.md shows.
const OWN_TEAM: &str = r#"decision := {"allow": true, "bindings": [binding.id]} if {
	input.principal.tenant == "main"
	some binding in input.bindings
	binding.owner == "payments"
	binding.mode == "agent"
	binding.risk in {"low", "medium"}
}"#;

#[test]
fn tenant_owner_risk_and_mode_decide() {
    let policy = policy(OWN_TEAM).unwrap();
    let binding = |id, owner, risk| Candidate { id, mode: Mode::Agent, owner, risk };
    let good = binding("good", "payments", Some(Risk::Medium));
    let own = principal(&[]);
    let decide = |principal: &Principal, bindings: Option<&[Candidate<'_>]>| {
        policy.decide(&Input { bindings, ..call(principal, "echo", json!({})) })
    };
    let verdict = decide(&own, Some(&[binding("other", "search", Some(Risk::Low)), good]));
    assert_eq!((verdict.allow, verdict.bindings), (true, vec!["good".to_owned()]));
    for refused in [
        &[][..],
        &[binding("high", "payments", Some(Risk::High))],
        &[binding("unrated", "payments", None)],
        &[binding("other", "search", Some(Risk::Low))],
        &[Candidate { mode: Mode::User, ..good }],
    ] {
        assert!(!decide(&own, Some(refused)).allow, "{refused:?}");
    }
    assert!(!decide(&own, None).allow);
    assert!(!decide(&Principal { tenant: "other".into(), ..own.clone() }, Some(&[good])).allow);
}

/// Too many bindings to show read as none that is known to be good.
#[test]
fn what_every_binding_must_be_is_not_so_where_they_are_not_shown() {
    let policy = policy("decision := {\"allow\": true} if every binding in input.bindings { binding.risk == \"low\" }");
    let policy = policy.unwrap();
    let own = principal(&[]);
    let allowed =
        |bindings: Option<&[Candidate<'_>]>| policy.decide(&Input { bindings, ..call(&own, "echo", json!({})) }).allow;
    let binding = |risk| Candidate { id: "b", mode: Mode::None, owner: "team", risk: Some(risk) };
    assert!(allowed(Some(&[binding(Risk::Low)])));
    assert!(!allowed(Some(&[binding(Risk::Low), binding(Risk::High)])));
    assert!(!allowed(None));
}

#[test]
fn what_is_no_decision_denies() {
    let cases = [
        (r#"decision := {"allow": true} if input.x == 2"#, "undefined"),
        (r"decision := true", "not an object"),
        (r#"decision := {"rule": "r"}"#, "`allow` is missing"),
        (r#"decision := {"allow": "yes"}"#, "`allow` has a wrong type"),
        (r#"decision := {"allow": 1}"#, "`allow` has a wrong type"),
        (r#"decision := {"allow": true, "rule": 1}"#, "`rule` has a wrong type"),
        (r#"decision := {"allow": true, "require_approval": true}"#, "`require_approval` is not a known member"),
        (r#"decision := {"allow": true, "bindings": "b"}"#, "`bindings` has a wrong type"),
        (r#"decision := {"allow": true, "bindings": [1]}"#, "not named by a string"),
        (r#"decision := {"allow": true, "required_scopes": "a"}"#, "`required_scopes` has a wrong type"),
        (r#"decision := {"allow": true, "required_scopes": [1]}"#, "a scope is not a string"),
        (r#"decision := {"allow": true, "required_scopes": ["a b"]}"#, "a scope is not one"),
        (r#"decision := {"allow": true, "required_scopes": ["a\", error=\"x"]}"#, "a scope is not one"),
        (
            r#"decision := {"allow": true, "required_scopes": [sprintf("%d", [n]) | some n in numbers.range(1, 33)]}"#,
            "more than 32",
        ),
        (r#"decision := {"allow": true, "obligations": [{"type": "throttle"}]}"#, "unknown obligation `throttle`"),
        (r#"decision := {"allow": true, "obligations": ["inject"]}"#, "not an object"),
        (r#"decision := {"allow": true, "obligations": [{"type": "inject"}]}"#, "exactly `type` and `binding`"),
        (
            r#"decision := {"allow": true, "obligations": [{"type": "inject", "binding": "b", "once": true}]}"#,
            "exactly",
        ),
        ("decision := {\"allow\": true}\n\ndecision := {\"allow\": false}", "undefined"),
    ];
    for (rego, expected) in cases {
        let verdict = decide(rego);
        assert!(!verdict.allow && verdict.bindings.is_empty(), "{rego}: {verdict:?}");
        let failure = verdict.failure.unwrap_or_else(|| panic!("{rego}")).to_string();
        assert!(failure.contains(expected), "{rego}: {failure}");
    }
}

/// Written down in policies/README.md: conditions belong into the body that allows.
#[test]
fn an_error_fails_the_body_that_holds_it() {
    for condition in
        [r#"not contains(input.x, "..")"#, r#"not startswith(input.x, "bad")"#, "input.x < \"a\"", "1 / 0 != 7"]
    {
        let verdict = decide(&format!(r#"decision := {{"allow": true}} if {{ {condition} }}"#));
        assert_eq!((verdict.allow, verdict.failure), (false, Some(Failure::Undefined)), "{condition}");
    }
    let forbidding = r#"decision := {"allow": true} if not forbidden

forbidden if contains(input.x, "..")"#;
    assert!(decide(forbidding).allow);
}

#[test]
fn bindings_and_obligations_are_read_in_order() {
    let verdict = decide(
        r#"decision := {"allow": true, "rule": "r", "explanation": "e", "bindings": ["one", "two"],
            "obligations": [{"type": "inject", "binding": "two"}, {"type": "inject", "binding": "three"}]}"#,
    );
    assert!(verdict.allow && verdict.failure.is_none());
    assert_eq!(verdict.bindings, ["one", "two", "three"]);
    assert_eq!((verdict.rule.as_deref(), verdict.explanation.as_deref()), (Some("r"), Some("e")));
}

#[test]
fn an_evaluation_ends_at_its_bound() {
    let endless = r#"decision := {"allow": true} if {
        count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a + b == 0]) == 0
    }"#;
    let few = Limits { max_instructions: 10_000, ..LIMITS };
    let verdict = policy_within(endless, few).unwrap().decide_value(Value::Null);
    assert!(matches!(verdict.failure, Some(Failure::OverBound(_))), "{verdict:?}");
    let short = Limits { timeout: Duration::from_millis(5), max_instructions: usize::MAX };
    let begun = Instant::now();
    let verdict = policy_within(endless, short).unwrap().decide_value(Value::Null);
    assert!(matches!(verdict.failure, Some(Failure::OverBound(_))), "{verdict:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn one_evaluation_leaves_nothing_to_the_next() {
    let policy = policy(
        r#"default decision := {"allow": false}
decision := {"allow": true, "rule": input.name} if input.good"#,
    )
    .unwrap();
    for round in 0..20 {
        let good = round % 2 == 0;
        let verdict = policy.decide_value(Value::from(json!({"good": good, "name": format!("round {round}")})));
        assert_eq!(verdict.allow, good);
        assert_eq!(verdict.rule, good.then(|| format!("round {round}")));
    }
}

#[test]
fn a_policy_that_cannot_be_used_is_named_with_its_place() {
    let error = |rego| policy(rego).err().unwrap().to_string();
    assert!(error("decision := {").contains("p.rego`:4:1: expecting"), "{}", error("decision := {"));
    assert!(error("decision := nonsense(input)").contains("p.rego`:3:"), "{}", error("decision := nonsense(input)"));
    assert!(error("other := 1").contains("no file has the rule `decision`"), "{}", error("other := 1"));
    let dir = Scratch::new();
    let load = || Policy::load(dir.path(), LIMITS).err().unwrap().to_string();
    assert!(load().contains("holds no `*.rego` file"), "{}", load());
    dir.write("only_test.rego", "package keyward\n\ndecision := {\"allow\": true}");
    assert!(load().contains("holds no `*.rego` file"), "{}", load());
    dir.write("p.rego", "package other\n\ndecision := {\"allow\": true}");
    assert!(load().contains("no file has the rule `decision`"), "{}", load());
    dir.write("p.rego", "package keyward\n\ndecision := {\"allow\": true}");
    for (data, expected) in
        [("[]", "not a JSON object"), ("{", "line 1"), (r#"{"keyward": {"decision": 1}}"#, "keyward")]
    {
        dir.write("data.json", data);
        assert!(load().contains(expected), "{data}: {}", load());
    }
}

/// Not a test of speed; prints what one decision costs.
#[test]
fn measure_one_decision() {
    let source = PolicySource::read(&policies()).unwrap();
    let policy = Policy::compile(&source, LIMITS).unwrap();
    let principal = principal(&["demo-user"]);
    let input = call(&principal, "echo", json!({"message": "hello"}));
    let mut best = [Duration::MAX; 3];
    for _ in 0..5 {
        let each = |run: &dyn Fn()| {
            let begun = Instant::now();
            (0..500).for_each(|_| run());
            begun.elapsed() / 500
        };
        best[0] = best[0].min(each(&|| assert!(policy.decide(&input).allow)));
        best[1] = best[1].min(each(&|| drop(input.to_value())));
        let interpreted = || policy.compiled.eval_with_input(input.to_value()).unwrap();
        best[2] = best[2].min(each(&|| drop(interpreted())));
    }
    eprintln!("decide {:?}, of that input {:?}; interpreted {:?}", best[0], best[1], best[2]);
}

#[test]
fn time_is_given_in_both_forms() {
    let principal = principal(&[]);
    for (secs, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_785_240_001, "2026-07-28T12:00:01Z"),
        (4_102_444_799, "2099-12-31T23:59:59Z"),
    ] {
        let mut input = call(&principal, "echo", json!({}));
        input.unix_secs = secs;
        assert_eq!(input.to_value()["time"]["rfc3339"], Value::from(text));
    }
}
