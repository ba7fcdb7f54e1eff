use super::*;

/// Sixty-four characters as random as a credential's; every test credential is cut out of them.
const NOISE: &str = "q7Zr2VxK9mT4wLb8NcY1hJ6sDfG3pQ5eRuA0iXoBzWtMkHvEyCnSgUjPdFaO4l8I2";

fn noise(length: usize) -> String {
    NOISE.chars().cycle().take(length).collect()
}

fn hex(length: usize) -> String {
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".chars().cycle().take(length).collect()
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

/// One credential for every rule.
fn samples() -> Vec<(&'static str, String)> {
    let upper = |length: usize| noise(200).to_ascii_uppercase().chars().take(length).collect::<String>();
    let base32 = |length: usize| upper(200).chars().filter(|c| !"0189".contains(*c)).take(length).collect::<String>();
    let claims = encoded(r#"{"sub":"somebody","exp":1}"#);
    let jwt = format!("{}.{claims}.{}", encoded(r#"{"alg":"RS256","typ":"JWT"}"#), noise(86));
    vec![
        ("age_secret_key", format!("AGE-SECRET-KEY-1{}", upper(58))),
        ("anthropic_key", format!("sk-ant-api03-{}-{}AA", noise(60), noise(26))),
        ("atlassian_token", format!("ATATT3xFfGF0{}={}", noise(170), upper(8))),
        ("aws_access_key_id", format!("AKIA{}", base32(16))),
        ("aws_access_key_id", format!("ASIA{}", base32(16))),
        ("databricks_token", format!("dapi{}", hex(32))),
        ("digitalocean_token", format!("dop_v1_{}", hex(64))),
        ("docker_token", format!("dckr_pat_{}", noise(27))),
        ("github_fine_grained_token", format!("github_pat_{}_{}", noise(22), noise(59))),
        ("github_token", ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat()),
        ("gitlab_token", format!("glpat-{}", noise(20))),
        ("gitlab_token", format!("glpat-{}.01.{}", noise(27), hex(9))),
        ("google_api_key", format!("AIza{}", noise(35))),
        ("google_oauth_secret", format!("GOCSPX-{}", noise(28))),
        ("google_oauth_token", format!("ya29.{}", noise(180))),
        ("grafana_token", format!("glsa_{}_{}", noise(32), hex(8))),
        ("huggingface_token", format!("hf_{}", noise(34))),
        ("jwt", jwt),
        ("linear_key", format!("lin_api_{}", noise(40))),
        ("newrelic_key", format!("NRAK-{}", upper(27))),
        ("npm_token", format!("npm_{}", noise(36))),
        ("openai_key", format!("sk-proj-{}T3BlbkFJ{}", noise(40), noise(40))),
        ("postman_key", format!("PMAK-{}-{}", hex(24), hex(34))),
        ("pypi_token", format!("pypi-AgEIcHlwaS5vcmc{}", noise(120))),
        ("sendgrid_key", format!("SG.{}.{}", noise(22), noise(43))),
        ("shopify_token", format!("shpat_{}", hex(32))),
        ("slack_token", format!("xoxb-2153412345-{}-{}", "9876501234", noise(24))),
        ("square_token", format!("sq0atp-{}", noise(22))),
        ("stripe_key", format!("sk_live_{}", noise(24))),
        ("vault_token", format!("hvs.{}", noise(90))),
    ]
}

fn carriers(inner: &str) -> Vec<String> {
    vec![
        inner.to_owned(),
        format!(r#"{{"token":"{inner}","n":1}}"#),
        format!(r#"{{"text":"first line\n{inner}\nlast"}}"#),
        format!(r#"{{"text":"key\u003d{inner}"}}"#),
        format!("https://host/path?key={inner}&x=1"),
        format!("a%3D{inner}"),
        format!("the token is {inner}."),
        format!("export TOKEN='{inner}'\n"),
        format!("data: {{\"a\":\"{inner}\"}}\n\n"),
    ]
}

/// Pushes in pieces of this size.
fn stream(guard: &Guard, text: &str, size: usize) -> (Finding, String, usize) {
    let (mut stream, mut out, mut finding, mut held) = (guard.stream(), Vec::new(), Finding::default(), 0);
    let mut pieces = text.as_bytes().chunks(size).peekable();
    while let Some(piece) = pieces.next() {
        let passed = stream.push(guard, piece, pieces.peek().is_none(), &mut out);
        finding.add(passed.finding);
        held = held.max(passed.held);
        if finding.blocked {
            break;
        }
    }
    (finding, String::from_utf8(out).unwrap(), held)
}

#[test]
fn every_rule_finds_its_credential_in_every_carrier_however_it_is_cut() {
    let masks = Guard::new(Action::Mask, &[]);
    let mut names: Vec<&str> = Vec::new();
    for (name, credential) in samples() {
        names.push(name);
        for carrier in carriers(&credential) {
            for size in [1, 2, 7, 64, 10_000] {
                let (finding, out, _) = stream(&masks, &carrier, size);
                assert_eq!(finding.names().collect::<Vec<_>>(), [name], "{size} {carrier}");
                assert_eq!(finding.masked, 1, "{carrier}");
                assert_eq!(out.len(), carrier.len(), "{carrier}");
                assert!(!out.contains(&credential[credential.len() - 12..]), "{out}");
                assert!(out.contains("REDACTED"), "{out}");
                assert_eq!(
                    out.replace(|c: char| "REDACT".contains(c), ""),
                    carrier.replace(&credential, "").replace(|c: char| "REDACT".contains(c), ""),
                    "{out}"
                );
            }
        }
    }
    names.dedup();
    let without_key: Vec<&str> = RULES.iter().map(|rule| rule.name).filter(|name| *name != "private_key").collect();
    assert_eq!(names, without_key, "one sample for each rule, in order");
}

#[test]
fn a_private_key_is_overwritten_below_its_first_line() {
    let masks = Guard::new(Action::Mask, &[]);
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        for line_break in ["\n", "\r\n", "\\n"] {
            let lines: Vec<String> = (0..60).map(|number| format!("{number}{}", noise(62))).collect();
            let key = lines.join(line_break);
            let text =
                format!("a -----BEGIN {label}-----{line_break}{key}{line_break}-----END {label}-----{line_break}rest");
            for size in [1, 3, 100, 100_000] {
                let (finding, out, held) = stream(&masks, &text, size);
                assert_eq!(finding.masked, 1);
                assert_eq!(out.len(), text.len());
                assert!(out.ends_with(&format!("{line_break}-----END {label}-----{line_break}rest")), "{out}");
                assert!(!out.contains(&noise(8)), "{out}");
                assert!(held < 64, "{held}");
            }
        }
    }
    for text in
        ["-----BEGIN CERTIFICATE-----\nMIIB\n", "-----BEGIN PUBLIC KEY-----\nMIIB\n", "-----BEGIN \n", "---- BEGIN"]
    {
        assert_eq!(stream(&masks, text, 5).0, Finding::default(), "{text}");
    }
}

#[test]
fn a_token_of_any_length_is_overwritten_whole() {
    let masks = Guard::new(Action::Mask, &[]);
    let claims = encoded(&format!(r#"{{"sub":"{}"}}"#, noise(20_000)));
    let jwt = format!("{}.{claims}.{}", encoded(r#"{"typ":"JWT","alg":"ES256"}"#), noise(86));
    for size in [1, 1000, 100_000] {
        let (finding, out, held) = stream(&masks, &format!("\"{jwt}\" after"), size);
        assert_eq!(finding.masked, 1);
        assert_eq!(out.len(), jwt.len() + 8);
        assert!(out.ends_with("\" after") && !out.contains(&noise(12)), "{size}");
        assert!(held <= HOLD_MAX_BYTES + 16, "{held}");
    }
}

#[test]
fn what_is_blocked_does_not_pass_and_what_is_logged_does() {
    let credential = format!("sk_live_{}", noise(24));
    let text = format!("before {credential} after");
    let number = rule("stripe_key").unwrap();
    for size in [1, 5, 1000] {
        let (finding, out, _) = stream(&Guard::new(Action::Off, &[(number, Action::Block)]), &text, size);
        assert!(finding.blocked);
        assert_eq!(out, "before ");
        let (finding, out, _) = stream(&Guard::new(Action::Off, &[(number, Action::Log)]), &text, size);
        assert_eq!((finding.logged, finding.blocked), (1, false));
        assert_eq!(out, text);
        let (finding, out, _) = stream(&Guard::new(Action::Block, &[(number, Action::Off)]), &text, size);
        assert_eq!((finding, out), (Finding::default(), text.clone()));
    }
}

#[test]
fn what_only_looks_like_a_credential_is_left_alone() {
    let masks = Guard::new(Action::Mask, &[]);
    let cases = [
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        format!("AKIA{}", "A".repeat(16)),
        format!("xAKIA{}", "QZRVXKMTWLBNCY27"),
        "AKIAQZRVXKMTWLBNCY27X".to_owned(),
        "AKIAQZRVXKMTWLBNCY278".to_owned(),
        format!("ghp_{}", noise(36)),
        format!("ghp_{}", noise(35)),
        "sk-learn-is-a-library-for-machine-learning-and-has-a-very-long-name-indeed".to_owned(),
        format!("sk-{}", noise(48)),
        "npm_config_registry_of_the_project_is_not_set_at_all".to_owned(),
        "sk_live_xxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_owned(),
        "hf_transformers_and_more_of_the_same_kind_of_words".to_owned(),
        "xoxb-your-token-goes-here-please-and-thank-you".to_owned(),
        format!("{}.{}", encoded(r#"{"alg":"none"}"#), encoded(r#"{"sub":"x"}"#)),
        format!("eyJ{}.{}.{}", noise(40), noise(40), noise(40)),
        "dapi0000000000000000000000000000000000".to_owned(),
        format!("glpat-{}", "your-personal-access-token"),
        "-----BEGIN EVERYTHING-----".to_owned(),
        "SG.short.key".to_owned(),
    ];
    for text in cases {
        for size in [1, 1000] {
            assert_eq!(stream(&masks, &text, size).0, Finding::default(), "{text}");
        }
    }
}

#[test]
fn what_is_held_back_is_bounded_and_only_what_begins_like_a_credential() {
    let masks = Guard::new(Action::Mask, &[]);
    let mut pushed = masks.stream();
    let mut out = Vec::new();
    assert_eq!(pushed.push(&masks, noise(5000).as_bytes(), false, &mut out).held, 0);
    assert_eq!(pushed.push(&masks, b" an ordinary sentence, then gh", false, &mut out).held, 2);
    assert!(pushed.push(&masks, b"p_abc", false, &mut out).held >= 7);
    assert_eq!(pushed.push(&masks, b" and more", false, &mut out).held, 0);
    for prefix in RULES.iter().flat_map(|rule| rule.prefixes) {
        let text = format!("\"{prefix}{}", "Aa0".repeat(20_000));
        let (_, _, held) = stream(&masks, &text, 700);
        assert!(held <= HOLD_MAX_BYTES + 16, "{prefix}: {held}");
    }
}

#[test]
fn a_guard_goes_over_the_wire_and_an_unknown_rule_does_not() {
    let named = [(rule("jwt").unwrap(), Action::Log), (rule("private_key").unwrap(), Action::Block)];
    let guard = Guard::new(Action::Mask, &named);
    assert!(Guard::parse(&guard.to_text()) == Some(guard.clone()), "{}", guard.to_text());
    assert!(guard.to_text().contains("log=jwt") && guard.to_text().len() < 600, "{}", guard.to_text());
    assert!(Guard::parse("").is_some_and(|guard| guard.is_off()));
    for text in ["mask", "mask=nothing", "shred=jwt", "mask=jwt,,", "mask=jwt;log"] {
        assert!(Guard::parse(text).is_none(), "{text}");
    }
    assert!(RULES.len() <= 64);
}
