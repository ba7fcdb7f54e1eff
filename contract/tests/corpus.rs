//! Counts what the scrubber finds in a labelled corpus: every form in every carrier, and text without any secret.

mod forms;

use std::collections::BTreeMap;

use forms::{ALNUM, Random, blobs, forms, reveals, secrets};
use keyward_contract::patterns::{Action, Guard};
use keyward_contract::scrub::Scrubber;

const SECRET_ROUNDS: usize = 12;
const CLEAN_BYTES: usize = 24 << 20;

fn escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Text that contains `inner` and, except for it, only ordinary things.
fn carriers(inner: &str) -> Vec<(&'static str, String)> {
    vec![
        (
            "MCP result",
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"text":"{}"}}]}}}}"#, escape(inner)),
        ),
        (
            "MCP result with JSON text",
            format!(r#"{{"result":{{"text":"{}"}}}}"#, escape(&format!(r#"{{"key":"{}","n":[1,2]}}"#, escape(inner)))),
        ),
        ("event stream", format!("event: message\ndata: {{\"text\":\"{}\"}}\n\ndata: {{}}\n\n", escape(inner))),
        ("HTML", format!("<html><body class=\"a\"><pre>\n{inner}\n</pre>&nbsp;</body></html>")),
        ("URL", format!("https://example.test/callback?state=1&key={inner}&scope=all")),
        ("header", format!("Bearer {inner}")),
        ("plain text", format!("line one\nvalue: {inner}\nline three\n")),
    ]
}

/// Finds in one go and in small pieces; both must agree.
fn count(scrubber: &Scrubber, text: &[u8], size: usize, events: bool) -> (u64, Vec<u8>) {
    let (mut stream, mut all, mut total) = (scrubber.stream(events), Vec::with_capacity(text.len()), 0);
    let mut chunks = text.chunks(size).peekable();
    while let Some(chunk) = chunks.next() {
        let mut out = Vec::new();
        let push = stream.push(scrubber, chunk, chunks.peek().is_none(), &mut out);
        all.extend_from_slice(push.verbatim.map_or(out.as_slice(), |length| &chunk[..length]));
        total += push.redactions;
    }
    (total, all)
}

#[test]
fn all_forms_in_all_carriers_are_found() {
    let random = &mut Random(20_260_728);
    let (mut by_form, mut missed) = (BTreeMap::<String, (usize, usize)>::new(), Vec::new());
    for _ in 0..SECRET_ROUNDS {
        for (_, secret) in secrets(random) {
            let scrubber = Scrubber::new(&[secret.as_bytes()]);
            let plain = forms(&secret, random).into_iter().map(|(name, form)| (name.to_owned(), form));
            for (name, form) in plain.chain(blobs(&secret, random)).collect::<Vec<_>>() {
                for (carrier, text) in carriers(&form) {
                    // Five layers of escapes, one more than are undone; or escapes of more than 128 bytes.
                    if carrier == "MCP result with JSON text"
                        && matches!(name.as_str(), "json three times" | "json twice escaped")
                    {
                        continue;
                    }
                    let (found, out) =
                        count(&scrubber, text.as_bytes(), 1 + random.below(200), carrier == "event stream");
                    let clean = random.below(8) > 0 || reveals(&out, &secret).is_none();
                    let tally = by_form.entry(name.clone()).or_default();
                    tally.1 += 1;
                    if found > 0 && clean && out.len() == text.len() {
                        tally.0 += 1;
                    } else {
                        missed.push(format!("{name} in {carrier} of {secret:?}: {text:?}"));
                    }
                }
            }
        }
    }
    let total = by_form.values().fold((0, 0), |sum, tally| (sum.0 + tally.0, sum.1 + tally.1));
    for (name, (found, all)) in &by_form {
        println!("{name:<28}{found:>6} of {all}");
    }
    println!("recall {} of {}", total.0, total.1);
    assert_eq!(missed.len(), 0, "{:#?}", &missed[..missed.len().min(3)]);
}

#[test]
fn near_misses_are_left_alone() {
    let random = &mut Random(42);
    let (mut tried, mut wrong) = (0, Vec::new());
    for _ in 0..SECRET_ROUNDS {
        for (kind, secret) in secrets(random) {
            if !secret.is_ascii() {
                continue;
            }
            let scrubber = Scrubber::new(&[secret.as_bytes()]);
            let mut near = secret.clone().into_bytes();
            let place = random.below(near.len());
            near[place] = match near[place] {
                b'q' | b'Q' => b'v',
                // `%71` ends in what was there.
                b'1' => b'z',
                _ => b'q',
            };
            let near = String::from_utf8(near).unwrap();
            let plain = forms(&near, random).into_iter().map(|(name, form)| (name.to_owned(), form));
            for (name, form) in plain.chain(blobs(&near, random)).collect::<Vec<_>>() {
                for (carrier, text) in carriers(&form) {
                    tried += 1;
                    let (found, out) =
                        count(&scrubber, text.as_bytes(), 1 + random.below(200), carrier == "event stream");
                    if found > 0 || out != text.as_bytes() {
                        let out = String::from_utf8_lossy(&out).into_owned();
                        wrong.push(format!("{kind}: {name} in {carrier} of {near:?} for {secret:?}: {text:?} {out:?}"));
                    }
                }
            }
        }
    }
    println!("false positives {} of {tried} near misses", wrong.len());
    assert_eq!(wrong.len(), 0, "{:#?}", &wrong[..wrong.len().min(3)]);
}

/// One piece of ordinary text of the kind that responses consist of.
fn ordinary(random: &mut Random) -> String {
    let words =
        ["the", "token", "key", "secret", "value", "request", "server", "list", "error", "user", "sk-live_", "q"];
    let mut sentence = |length| (0..length).map(|_| words[random.below(words.len())]).collect::<Vec<_>>().join(" ");
    let text = sentence(40);
    let noise: Vec<u8> = (0..600).map(|_| random.next() as u8).collect();
    let latin = String::from_utf8_lossy(&noise).into_owned();
    let code = "fn main() {\n\tlet path = \"C:\\\\new\\\\table\";\n\tprintln!(\"{}%\\n\", 100 * a / b & 0x3D);\n}\n";
    let id = random.next();
    let item = format!(r#"{{"id":{id},"text":"{text}","code":"{}","latin":"{}"}}"#, escape(code), escape(&latin));
    match random.below(10) {
        0 => item,
        1 => format!(r#"{{"result":{{"content":[{{"type":"text","text":"{}"}}]}}}}"#, escape(&item)),
        2 => format!("event: message\nid: {id}\ndata: {item}\n\n"),
        3 => forms::base64_around(&noise, random, 0),
        4 => forms::wrap(&forms::base64_around(&noise, random, 1), 76, "\r\n"),
        5 => forms::html(&format!("<p>{text} & {code}</p>"), random, 9),
        6 => code.to_owned(),
        7 => noise.chunks(16).map(|row| forms::hex(row, random, 0) + "\n").collect(),
        8 => forms::percent(latin.as_bytes(), random, false),
        _ => forms::quoted_printable(latin.as_bytes(), random),
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    let random = &mut Random(99);
    let keys: Vec<String> = (0..3).map(|_| random.text(ALNUM, 32)).collect();
    let mut scrubbers: Vec<Scrubber> = secrets(random).iter().map(|(_, secret)| Scrubber::new(&[secret])).collect();
    scrubbers.push(Scrubber::new(&keys));
    let (mut seen, mut found) = (0, 0);
    while seen < CLEAN_BYTES {
        let text = ordinary(random);
        for scrubber in &scrubbers {
            let (redactions, out) = count(scrubber, text.as_bytes(), 700, text.starts_with("event: "));
            found += redactions;
            assert!(redactions == 0 && out == text.as_bytes(), "false positive in {text:?}");
            seen += text.len();
        }
    }
    println!("false positives {found} in {} MiB of ordinary text", seen >> 20);
}

#[test]
fn the_patterns_leave_ordinary_text_alone() {
    let random = &mut Random(7);
    let guard = Guard::new(Action::Mask, &[]);
    let (mut seen, mut found) = (0, 0);
    let mut look = |text: &[u8]| {
        let inspected = guard.inspect(text);
        seen += text.len();
        found += inspected.finding.masked;
        assert_eq!(inspected.finding.names().next(), None, "{}", String::from_utf8_lossy(text));
    };
    for _ in 0..8_000 {
        look(ordinary(random).as_bytes());
        // Ids and digests as they stand in answers: random, of many lengths, without a prefix.
        let lengths = [16, 20, 32, 36, 40, 64, 86, 200];
        let ids: Vec<String> = lengths.iter().map(|length| random.text(ALNUM, *length)).collect();
        look(format!(r#"{{"ids":{ids:?},"etag":"W/\"{}\""}}"#, ids.join("-")).as_bytes());
    }
    // What people write about them: this repository, lock files with their checksums included.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "Cargo.lock",
        "docs/security.md",
        "docs/configuration.md",
        "envoy/demo.yaml",
        "tests/node/package-lock.json",
        "contract/src/patterns/rules.rs",
        "contract/src/patterns/check.rs",
        "docs/benchmarks.svg",
    ] {
        look(&std::fs::read(root.join(file)).unwrap_or_default());
    }
    println!("false positives {found} in {} MiB of ordinary text", seen >> 20);
}
